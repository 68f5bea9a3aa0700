"""A run's lines, read while they are written."""

import json

from sml_dist.train.report import RunFolder


def steps(lines: list[str]) -> list[int]:
    return [json.loads(line)["step"] for line in lines]


def test_a_reader_gets_each_line_once_and_no_half_of_one(tmp_path):
    folder, path = RunFolder(tmp_path), tmp_path / "metrics.jsonl"
    found = folder.new_lines("metrics.jsonl", whole=True)
    assert next(found) == []
    for step in (1, 2):
        folder.log(step=step)
    with path.open("a") as file:
        file.write('{"step": 3')
    assert steps(next(found)) == [1, 2] and next(found) == []
    with path.open("a") as file:
        file.write('}\n{"step": 4}\n')
    assert steps(next(found)) == [3, 4] and steps(next(folder.new_lines("metrics.jsonl"))) == []


def test_a_reader_goes_on_with_whole_lines_after_a_restart_that_wrote_more_than_it_dropped(tmp_path):
    """Between two looks: the file is longer than before, and where the last look ended another line has its middle."""
    folder = RunFolder(tmp_path)
    found = folder.new_lines("metrics.jsonl", whole=True)
    for step in range(1, 6):
        folder.log(step=step)
    assert steps(next(found)) == [1, 2, 3, 4, 5]
    folder.forget_after(4)
    for step in range(5, 9):
        folder.log(step=step, longer="x" * 50 * step)
    assert steps(next(found)) == [6, 7, 8]
    folder.log(step=9)
    assert steps(next(found)) == [9]
