"""The books have every event, and an event costs no more where many trials came before it."""

import json
from dataclasses import asdict
from types import SimpleNamespace

from sml_dist.tune import books as module
from sml_dist.tune.books import Books, Record
from tests.tune.sweeps import trials


def opened(folder, count: int = 0) -> Books:
    books = Books(folder, 1, "auc")
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
    opened(tmp_path).reopen()
    books = opened(tmp_path)
    assert trials(tmp_path) == [asdict(books.records[id]) for id in range(3)]
    assert [record.status for record in books.records.values()] == ["running", "finished", "cut"]
    assert books.records[1].params == {"train.lr": 0.3} and books.records[2].error == "of the disk"


def test_an_event_is_written_in_one_line_made_anew_however_many_trials_there_are(tmp_path, monkeypatch):
    books, made = opened(tmp_path, 50), []
    monkeypatch.setattr(module, "json", SimpleNamespace(dumps=lambda value: made.append(value["id"]) or json.dumps(value)))
    books.begin(7)
    books.evaluated(7, evaluation(1, 0.7))
    assert made == [7, 7] and len(trials(tmp_path)) == 50
