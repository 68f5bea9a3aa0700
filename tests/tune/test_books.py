"""The books have every event, and an event costs no more where many trials came before it."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from sml_dist.spec import InputError
from sml_dist.trials import Record
from sml_dist.tune import books as module
from sml_dist.tune.books import Books
from tests.tune.sweeps import trials


def opened(folder, count: int = 0) -> Books:
    books = Books(folder, "auc")
    if count:
        books.add(Record(id, {"train.lr": id / 10}, f"trials/{id:05d}") for id in range(count))
    return books


def evaluation(epoch: int, auc: float, rows: int = 8_000) -> dict:
    return {"rows": rows * epoch, "step": 10 * epoch, "epoch": epoch, "auc": auc}


def test_the_file_has_every_event_of_every_trial(tmp_path):
    books = opened(tmp_path, 3)
    books.begin(1)
    books.evaluated(1, evaluation(1, 0.7))
    books.exploited(1, {"step": 10, "from": 0, "params": {"train.lr": 0.3}})
    books.end(1, "finished", summary={"steps": 10})
    books = opened(tmp_path)
    books.begin(2)
    books.end(2, "failed", error="of the disk")
    metrics = tmp_path / "trials/00002/metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text('{"step": 10, "auc": 0.7, "split": "valid"}\n')
    opened(tmp_path).reopen()
    books = opened(tmp_path)
    assert metrics.read_text() == ""  # it begins anew
    assert trials(tmp_path) == [asdict(books.records[id]) for id in range(3)]
    assert [record.status for record in books.records.values()] == ["running", "finished", "cut"]
    assert books.records[1].params == {"train.lr": 0.3} and books.records[2].error == "of the disk"
    books.close()  # it was not tried again
    assert books.records[2].status == "failed"


def test_a_trials_value_is_of_what_led_to_its_checkpoint(tmp_path):
    """Of another's, up to an exploit: what it measured itself before that is of tables that are gone."""
    books = opened(tmp_path, 2)
    for id, aucs in ((0, (0.9, 0.5, 0.95)), (1, (0.7, 0.8, 0.6))):
        for epoch, auc in enumerate(aucs, 1):
            books.evaluated(id, evaluation(epoch, auc))
    books.exploited(0, {"step": 20, "from": 1, "params": {"train.lr": 0.3}})
    assert books.records[0].value == 0.8 and books.records[0].rows == 16_000
    books.evaluated(0, evaluation(3, 0.85))
    books.recover(0, [evaluation(4, 0.7)])
    assert [each["auc"] for each in books.records[0].history] == [0.7, 0.8, 0.85, 0.7] and books.records[0].value == 0.85


@pytest.mark.parametrize("damage", [b'{"id": 1, "par', b"\x00\x00\x00\x00", b"7", b'"\xff"'])
def test_a_damaged_line_is_named_with_the_way_out(tmp_path, damage):
    opened(tmp_path, 3)
    lines = (tmp_path / "trials.jsonl").read_bytes().splitlines()
    (tmp_path / "trials.jsonl").write_bytes(b"\n".join([lines[0], damage, lines[2]]))
    with pytest.raises(InputError, match="trials.jsonl, line 2 is damaged; take away the line and its run's folder"):
        opened(tmp_path)
    (tmp_path / "trials.jsonl").write_bytes(b"\n".join([lines[0], lines[2]]))
    assert [*opened(tmp_path).records] == [0, 2]


@pytest.mark.parametrize(
    ("strange", "told"),
    [
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
        ({"run": None}, "missing .*'run'"),
        ({"value": "high"}, "value 'high' is no number"),
    ],
)
def test_a_line_of_another_version_is_named_with_the_way_out(tmp_path, strange, told):
    """`None` takes a key away."""
    opened(tmp_path, 2)
    lines = trials(tmp_path)
    lines[1] = {key: value for key, value in (lines[1] | strange).items() if key not in strange or value is not None}
    (tmp_path / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=f"trials.jsonl, line 2 is no trial of this version .*{told}.*; go on with the version"):
        opened(tmp_path)


def test_an_event_is_written_in_one_line_made_anew_however_many_trials_there_are(tmp_path, monkeypatch):
    books, made = opened(tmp_path, 50), []
    monkeypatch.setattr(module, "json", SimpleNamespace(dumps=lambda value: made.append(value["id"]) or json.dumps(value)))
    books.begin(7)
    books.evaluated(7, evaluation(1, 0.7))
    assert made == [7, 7] and len(trials(tmp_path)) == 50


def test_what_is_no_number_is_null_or_left_out_and_the_lines_are_json(tmp_path):
    """Such as a GAUC without a group of both labels; what is read again goes on as what was written."""
    books = opened(tmp_path, 1)
    books.begin(0)
    books.evaluated(0, evaluation(1, 0.7) | {"gauc": float("nan"), "calibration": float("inf")})
    books.end(0, "finished", summary={"valid": {"auc": 0.7, "gauc": float("nan")}})
    found = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert found[0]["summary"] == {"valid": {"auc": 0.7, "gauc": None}} and found[0]["history"][0].keys() == {*evaluation(1, 0.7), "time"}
    books = Books(tmp_path, "gauc")
    books.recover(0, [evaluation(2, 0.8) | {"gauc": 0.6}])
    assert len(books.records[0].history) == 2 and books.records[0].value == 0.6
