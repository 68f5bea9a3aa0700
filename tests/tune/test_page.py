"""What a sweep leaves for people says who was best, and what of: not of trials that failed, and of the default by its settings."""

import contextlib
import html
import re
from pathlib import Path
from types import SimpleNamespace

from sml_dist.review.report import write_report
from sml_dist.trials import Record
from sml_dist.tune.blueprint import Blueprint
from sml_dist.tune.books import Books
from sml_dist.tune.clerk import Clerk
from sml_dist.tune.page import line, write_results
from sml_dist.tune.sweep import begin
from tests.tune.sweeps import write_sweep

SML, RATE = "model.sml.enabled", "embedding.lr"


def result(path: str, *records: Record) -> tuple[dict, str]:
    blueprint = Blueprint.read(path)
    books = Books(blueprint.folder, blueprint.sweep.metric)
    books.add(records)
    return write_results(blueprint, books), (blueprint.folder / "README.md").read_text()


def ended(id: int, value: float | None, params: dict, status: str = "finished", **more) -> Record:
    history = [{"rows": 4_000, "auc": value}] if value else []
    return Record(id, params, f"trials/{id:05d}", status=status, value=value, history=history, **more)


def test_a_trial_that_failed_is_not_the_best(rows, tmp_path):
    space = {RATE: {"loguniform": [1e-3, 0.2]}}
    failed = ended(1, 0.9, {RATE: 0.2}, "failed", error="3 bad steps in a row")
    found, text = result(write_sweep(tmp_path, rows, space=space), ended(0, 0.7, {RATE: 0.05}), failed, ended(2, 0.8, {RATE: 0.1}))
    assert found["best"]["id"] == 2 and found["default"] == 0.7 and "trial 1 failed: 3 bad steps" in text


def test_the_default_is_the_base_itself_whatever_the_first_point_is(rows, tmp_path):
    space = {RATE: {"loguniform": [1e-3, 0.2]}}
    first, base = ended(0, 0.8, {RATE: 0.1}, point=0), ended(1, 0.7, {RATE: 0.05}, "stopped", point=1)
    found, text = result(write_sweep(tmp_path, rows, space=space, points=[{RATE: 0.1}, {}]), first, base)
    assert found["default"] == 0.7 and "The default (trial 1, stopped after 4,000 rows) has 0.70000" in text


def test_the_best_and_the_default_that_it_is_compared_with_keep_their_checkpoints(rows, tmp_path):
    blueprint = Blueprint.read(write_sweep(tmp_path, rows, space={RATE: {"loguniform": [1e-3, 0.2]}}, keep=2))
    books = Books(blueprint.folder, "auc")
    books.add(ended(id, 0.7 + id / 100, {RATE: 0.05 + id / 100}) for id in range(5))
    for record in books.records.values():
        (blueprint.folder / record.run / "checkpoints").mkdir(parents=True)
    Clerk(blueprint, books, SimpleNamespace(tell=print), print).end(1, "stopped")
    assert sorted(path.parent.name for path in blueprint.folder.glob("trials/*/checkpoints")) == ["00000", "00003", "00004"]


def test_of_a_population_the_result_is_a_checkpoint_not_the_settings_it_had_last(rows, tmp_path):
    space = {RATE: {"loguniform": [1e-3, 0.2]}}
    path = write_sweep(tmp_path, rows, space=space, scheduler={"name": "pbt"})
    exploits = [{"step": 10, "from": 1, "params": {RATE: 0.1}}]
    _, text = result(path, ended(0, 0.7, {RATE: 0.05}, exploits=exploits))
    outcome = "its settings changed as it went, so its checkpoint in trials/00000 is the result"
    said = f": {outcome}; `best.yaml`, written when the sweep ends, has the last ones alone"
    assert f"Best: trial 0 with AUC 0.70000{said}." in text
    assert (tmp_path / "s/best.yaml").read_text().startswith(f"# Trial 0 of the sweep s{said}\n")


def test_the_table_has_a_column_of_its_own_for_every_key(rows, tmp_path):
    keys = ["train.epochs", "train.lr", "embedding.lr", "model.sml.mtn.rank", "data.seconds", "model.auc", "x.y.z", "v.y.z"]
    found = line(ended(0, 0.7, {key: key for key in keys}), "auc", keys, 8_000)
    assert found["epochs"] == 0.5 and found["train.epochs"] == "train.epochs" and found["auc"] == "0.70000"
    assert list(found)[5:] == ["train.epochs", "train.lr", "embedding.lr", "rank", "data.seconds", "model.auc", "x.y.z", "v.y.z"]


def test_a_pair_is_held_against_off_in_whatever_order_its_values_stand(rows, tmp_path):
    for number, choice in enumerate(([True, False], [False, True])):
        path = write_sweep(tmp_path / str(number), rows, space={SML: {"choice": choice}, RATE: {"loguniform": [1e-3, 0.2]}}, pair=SML)
        both = [(draw, on) for draw in (0, 1) for on in (False, True)]
        pairs = [ended(2 * d + on, 0.7 + d / 10 + on / 100, {SML: on, RATE: (0.05, 0.02)[d]}, pair=d) for d, on in both]
        cut = [ended(4, 0.9, {SML: True, RATE: 0.1}, pair=2), ended(5, 0.2, {SML: False, RATE: 0.1}, "cut", pair=2)]
        found, _ = result(path, *pairs, *cut)
        assert list(found["pairs"]) == ["model.sml.enabled True minus False"] and found["pairs"][f"{SML} True minus False"]["seeds"] == 2
        assert found["default"] == 0.7 and (Path(found["folder"]) / "pairs.csv").read_text().count("\n") == 3


def test_the_readme_and_the_report_of_a_sweep_say_the_same_in_the_same_words(rows, tmp_path):
    """Of a metric of which less is better, too."""
    space = {SML: {"choice": [True, False]}, RATE: {"loguniform": [1e-3, 0.2]}}
    path = write_sweep(tmp_path, rows, space=space, pair=SML, metric="logloss")
    blueprint = Blueprint.read(path)
    with contextlib.ExitStack() as stack:
        begin(blueprint, stack)
    values = {(0, False): 0.45, (0, True): 0.43, (1, False): 0.41, (1, True): 0.40}
    _, text = result(path, *(ended(2 * d + on, value, {SML: on, RATE: (0.05, 0.02)[d]}, pair=d) for (d, on), value in values.items()))
    page = html.unescape(re.sub("</?code>", "`", Path(write_report([str(blueprint.folder)])["report"]).read_text()))
    said = [line for line in text.splitlines() if line.startswith(("Best: ", SML))]
    assert len(said) == 2 and all(line in page for line in said)
    assert "`best.yaml`, written when the sweep ends, trains it" in said[0]  # the report is also made of a sweep that has not ended
    assert "The default (trial 0) has 0.45000: the best is better by 0.05000." in said[0] and "logloss (lower is better)" in said[1]
    assert "| True minus False | 2 | -0.015 |" in text and ">True minus False<" in page and ">-0.015<" in page
