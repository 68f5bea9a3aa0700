"""Split rules: how they are written, and which rows they take."""

import numpy as np
import pytest

from sml_dist.data.sketch import Histogram
from sml_dist.data.spans import RawFile, Span
from sml_dist.data.split import by_files, parse_rule, resolve
from sml_dist.spec import InputError

FILE = RawFile("a.csv", 100, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.8,0.2", "is no rule; write it like order:"),
        ("sorted:0.8,0.2", "is no rule"),
        ("order:", "is no rule"),
        ("order:a,b", "is no rule"),
        ("order:1.0", "is no rule"),
        ("order:0.7,0.1,0.1,0.1", "is no rule"),
        ("order:0.9,-0.1,0.2", "is no rule"),
        ("order:nan,0.1", "is no rule"),
        ("order:0.8,0.1", "the fractions add up to 0.9, not 1"),
        ("random:80,20", "numbers of rows go with order: alone"),
    ],
)
def test_a_wrong_rule_is_refused_with_one_line(text, message):
    with pytest.raises(InputError) as error:
        parse_rule(text, 0)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_order_takes_rows_by_their_place_over_all_files():
    rule = resolve(parse_rule("order:0.5,0.25,0.25", 0), 8, Histogram.empty())
    assert rule.cuts == (4, 6)
    span = Span(FILE, 0, None, 1, rows=6, first_row=11, first_index=2)
    assert rule.assign(span, np.arange(11, 17), None).tolist() == [0, 0, 1, 1, 2, 2]
    assert rule.may_train(span) and not rule.may_train(Span(FILE, 0, None, 1, first_index=4))


def test_order_by_numbers_of_rows_must_cover_the_input():
    assert resolve(parse_rule("order:6,2", 0), 8, Histogram.empty()).cuts == (6,)
    with pytest.raises(InputError, match="is for 8 rows, but the input has 10; add 2 as a third number"):
        resolve(parse_rule("order:6,2", 0), 10, Histogram.empty())
    with pytest.raises(InputError, match="is for 8 rows, but the input has 7; give numbers that add up to it"):
        resolve(parse_rule("order:6,2", 0), 7, Histogram.empty())


def test_random_takes_shares_and_depends_on_nothing_but_seed_file_and_row():
    rule = resolve(parse_rule("random:0.8,0.1,0.1", 7), 10_000, Histogram.empty())
    rows = np.arange(1, 10_001)
    whole = rule.assign(Span(FILE, 0, None, 1), rows, None)
    assert np.bincount(whole) / 10_000 == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert rule.assign(Span(FILE, 50, 60, 1, first_row=501, first_index=900), rows[500:], None).tolist() == whole[500:].tolist()
    other = resolve(parse_rule("random:0.8,0.1,0.1", 8), 10_000, Histogram.empty())
    assert other.assign(Span(FILE, 0, None, 1), rows, None).tolist() != whole.tolist()


def test_time_never_lets_one_second_straddle_two_splits():
    times = np.repeat(np.arange(20), 7)
    rule = resolve(parse_rule("time:0.81,0.09,0.1", 0), len(times), Histogram.of(times))
    splits = rule.assign(Span(FILE, 0, None, 1), np.arange(len(times)), times)
    assert all(len(set(splits[times == t])) == 1 for t in range(20))
    assert np.all(np.diff(splits) >= 0) and np.bincount(splits).tolist() == [112, 14, 14]


def test_time_with_too_few_times_is_refused():
    for times in (np.zeros(0), np.zeros(9), np.array([0, 0, 1])):
        with pytest.raises(InputError, match="too few different times"):
            resolve(parse_rule("time:0.8,0.1,0.1", 0), len(times), Histogram.of(times))


def test_files_belong_where_they_are_named():
    rule = by_files(["train", "valid"])
    train, valid = (Span(RawFile("x", 1, 0, split), 0, None, 1) for split in ("train", "valid"))
    assert rule.assign(valid, np.arange(3), None).tolist() == [1, 1, 1]
    assert rule.may_train(train) and not rule.may_train(valid)
