"""A run's files: whole or absent, and its lines, read while they are written."""

import json
import os

import pytest

from sml_dist.spec import InputError
from sml_dist.train.run_folder import RunFolder, objects


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


def test_a_reader_gets_what_a_restart_wrote_after_the_lines_that_it_kept_whatever_it_dropped(tmp_path):
    """Between two looks: the file is longer than before, and where the last look ended another line has its middle."""
    folder = RunFolder(tmp_path)
    found = folder.new_lines("metrics.jsonl", whole=True)
    for step in range(1, 6):
        folder.log(step=step)
    assert steps(next(found)) == [1, 2, 3, 4, 5]
    folder.forget_after(4)
    for step in range(5, 9):
        folder.log(step=step, longer="x" * 50 * step)
    assert steps(next(found)) == [5, 6, 7, 8]
    folder.log(step=9)
    assert steps(next(found)) == [9]


@pytest.mark.parametrize("whole", [True, False])
def test_a_reader_hears_that_a_run_goes_on_where_that_stands_before_the_last_place(tmp_path, whole):
    """The file is shorter than before; of the lines that stay none is given again."""
    folder = RunFolder(tmp_path)
    for step in range(1, 11):
        folder.log(step=step)
    found = folder.new_lines("metrics.jsonl", whole=whole)
    assert steps(next(found)) == (list(range(1, 11)) if whole else [])
    folder.forget_after(5)
    folder.log(event="resumed", step=5)
    assert [json.loads(line).get("event") for line in next(found)] == ["resumed"]
    folder.log(step=6)
    assert steps(next(found)) == [6]


def test_a_reader_that_came_before_the_file_gets_its_first_lines(tmp_path):
    folder = RunFolder(tmp_path)
    found = folder.new_lines("metrics.jsonl")
    assert next(found) == []
    folder.log(step=1)
    assert steps(next(found)) == [1]


def test_a_reader_goes_on_past_bytes_that_are_no_text(tmp_path):
    """As a page of a disk that was lost leaves them, in the middle of a file."""
    folder, path = RunFolder(tmp_path), tmp_path / "metrics.jsonl"
    found = folder.new_lines("metrics.jsonl", whole=True)
    path.write_bytes(b'{"step": 1}\n{"st\xff\xfe\x80\n{"step": 3}\n')
    assert [line["step"] for line in objects(next(found))] == [1, 3]
    folder.log(step=4)
    assert steps(next(found)) == [4]


def test_a_run_goes_on_past_bytes_that_are_no_text_and_lines_that_are_no_object(tmp_path):
    folder, path = RunFolder(tmp_path), tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\xff\xfe\n[3]\n{"step": 2}\n{"step": 9}\n')
    folder.forget_after(2)
    assert steps(path.read_text().splitlines()) == [1, 2]
    (tmp_path / "error.json").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"error\.json is damaged .*take it away"):
        folder.read_json("error.json")


def test_two_that_write_a_file_at_once_leave_it_whole_and_nothing_besides(tmp_path, monkeypatch):
    """The second writes all of its own between the first's text and its name."""
    folder, replace = RunFolder(tmp_path), os.replace

    def after_another(*names):
        monkeypatch.setattr(os, "replace", replace)
        folder.write_json("error.json", {"run_error": "of the second"})
        replace(*names)

    monkeypatch.setattr(os, "replace", after_another)
    folder.write_json("error.json", {"run_error": "of the first"})
    assert folder.read_json("error.json") == {"run_error": "of the first"}
    assert [path.name for path in tmp_path.iterdir()] == ["error.json"]


def test_a_file_that_cannot_be_written_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        RunFolder(tmp_path).write("plan.txt", "a plan")
    assert not list(tmp_path.iterdir())
