"""A record is a line: whatever stands in it, each line is one kept row or one reject."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sml_dist.data import text
from sml_dist.data.text import Layout, line_blocks, parse
from sml_dist.spec import InputError

CSV = Layout(["a", "b", "c"], ["a", "c"], ",", True)
TSV = Layout(["a", "b", "c"], ["a", "c"], "\t", False)


def numbers(parsed):
    return sorted([*parsed.rows.tolist(), *(reject.row for reject in parsed.rejects)])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(st.sampled_from(list('ab,"\t\ré')), max_size=12).map(str.encode), min_size=1), st.sampled_from([CSV, TSV]))
def test_every_line_is_kept_or_rejected_and_none_depends_on_another(lines, layout):
    whole = parse(b"".join(line + b"\n" for line in lines), layout, 1)
    assert numbers(whole) == list(range(1, len(lines) + 1))
    apart = [parse(line + b"\n", layout, row) for row, line in enumerate(lines, 1)]
    assert whole.table.to_pylist() == [row for part in apart for row in part.table.to_pylist()]
    assert sorted(whole.rejects, key=lambda r: r.row) == [reject for part in apart for reject in part.rejects]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=10)), st.integers(1, 5))
def test_blocks_are_whole_lines_and_lose_nothing(lines, size):
    data = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines)
    blocks = list(line_blocks(data[i : i + size] for i in range(0, len(data), size)))
    assert b"".join(blocks) == data and all(block.endswith(b"\n") for block in blocks)


def test_the_last_line_needs_no_end():
    assert list(line_blocks([b"a\nb"])) == [b"a\n", b"b\n"]


def test_an_unclosed_quote_costs_its_own_line_alone():
    parsed = parse(b'1,2,3\n4,"5,6\n7,8,9\n"a,b",""x,"c"",d"\n', CSV, 10)
    assert parsed.rows.tolist() == [10, 12, 13]
    assert parsed.table.to_pylist()[-1] == {"a": "a,b", "c": 'c",d'}
    assert [str(reject) for reject in parsed.rejects] == [
        "row 11: a quote is not closed on its line, or a carriage return stands inside it: '4,\"5,6'"
    ]


@pytest.mark.parametrize("line", ['1,2,"3', '"1,2,3', '1,"2,3', '1,2,"3""'])
def test_a_quote_open_at_the_end_of_a_line_rejects_it_wherever_it_stands(line):
    for block in (f"{line}\n", f"{line}\n4,5,6\n", f"4,5,6\n{line}\n"):
        parsed = parse(block.encode(), CSV, 1)
        assert len(parsed.rejects) == 1 and "a quote is not closed" in parsed.rejects[0].reason


@pytest.mark.parametrize(
    ("layout", "line"), [(CSV, b'1,"5 inch,3\n'), (CSV, b'"a""b,",5" x,"\n'), (CSV, b"1,\r2,3\n"), (TSV, b"1\t2\r\t3\n")]
)
def test_lines_that_hold_no_record_cost_one_more_reading_however_many_they_are(monkeypatch, layout, line):
    """Where each line was looked for by halving, 150,000 took three minutes."""
    readings, read_csv = [], text.csv.read_csv
    monkeypatch.setattr(text.csv, "read_csv", lambda *args: readings.append(1) or read_csv(*args))
    good = b'"1"\t5" x\t3\n'.replace(b"\t", layout.delimiter.encode())
    parsed = parse((line + good + b"1\n") * 50, layout, 1)
    assert len(readings) <= 2
    assert parsed.rows.tolist() == list(range(2, 151, 3)) and numbers(parsed) == list(range(1, 151))
    assert {reject.reason for reject in parsed.rejects if reject.row % 3} == {parse(line, layout, 1).rejects[0].reason}


def test_quotes_mean_nothing_in_tsv():
    parsed = parse(b'"1\t2\t3"\n', TSV, 1)
    assert parsed.table.to_pylist() == [{"a": '"1', "c": '3"'}]


def test_windows_line_ends_are_read_and_blank_lines_rejected():
    parsed = parse(b"1,2,3\r\n\r\n4,5,6\r\n", CSV, 1)
    assert parsed.table.to_pylist() == [{"a": "1", "c": "3"}, {"a": "4", "c": "6"}]
    assert [str(reject) for reject in parsed.rejects] == ["row 2: blank line"]


def test_too_few_and_too_many_fields_are_told():
    parsed = parse(b"1,2\n1,2,3\n1,2,3,4\n", CSV, 1)
    assert [str(reject) for reject in parsed.rejects] == ["row 1: 2 fields, 3 expected", "row 3: 4 fields, 3 expected"]
    assert np.array_equal(parsed.rows, [2])


def test_a_line_without_end_stops_with_an_error(monkeypatch):
    monkeypatch.setattr("sml_dist.data.text.MAX_LINE_BYTES", 100)
    with pytest.raises(InputError, match="no line end"):
        list(line_blocks(b"x" * 30 for _ in range(5)))
