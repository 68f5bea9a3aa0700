"""Draws: points first, pairs alike, never the same again after a restart; decisions as if there had been none."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from sml_dist.trials import Record
from sml_dist.tune.blueprint import Blueprint
from sml_dist.tune.books import Books
from sml_dist.tune.schedule import make_scheduler
from sml_dist.tune.search import Search
from tests.tune.sweeps import write_sweep


def opened(path: str) -> tuple[Blueprint, Books]:
    blueprint = Blueprint.read(path)
    return blueprint, Books(blueprint.folder, "auc")


def drawn(path: str, count: int) -> list[dict]:
    search = Search(*opened(path))
    search.slots = count
    found = [search.suggest(str(number)) for number in range(count)]
    return [each["given"] for each in found if each != "FINISHED"]


def ended(books: Books, id: int, *values: float) -> None:
    for number, value in enumerate(values):
        books.evaluated(id, {"rows": 8_000 * (number + 1), "step": number, "epoch": number + 1, "auc": value})
    books.end(id, "finished", summary={})


def test_the_default_comes_first_and_no_more_trials_are_drawn_than_asked_for(rows, tmp_path):
    found = drawn(write_sweep(tmp_path, rows, trials=4), 9)
    assert [each["id"] for each in found] == [0, 1, 2, 3]
    assert found[0]["params"] == {"model.sml.enabled": False, "model.tower.hidden": [8], "embedding.lr": 0.05}


@pytest.mark.parametrize("name", ["random", "optuna"])
def test_after_a_restart_what_was_not_done_comes_first_then_new_draws(rows, tmp_path, name):
    path = write_sweep(tmp_path, rows, trials=12, search={"name": name, "startup": 3})
    first = drawn(path, 6)
    _, books = opened(path)
    for id in (0, 1, 4):
        ended(books, id, 0.5 + id / 100)
    again = drawn(path, 99)
    assert [each["id"] for each in again] == [2, 3, 5, *range(6, 12)] and again[:3] == [first[2], first[3], first[5]]
    lines = [json.dumps(each["params"], sort_keys=True) for each in (*first, *again[3:])]
    assert len(set(lines)) == 12


def test_a_trial_whose_line_was_damaged_and_taken_away_takes_no_others_place(rows, tmp_path):
    path = write_sweep(tmp_path, rows, trials=5)
    drawn(path, 3)
    lines = (tmp_path / "s/trials.jsonl").read_text().splitlines()
    (tmp_path / "s/trials.jsonl").write_text(f"{lines[0]}\n{lines[2]}\n")
    assert [each["id"] for each in drawn(path, 9)] == [0, 2, 3, 4]
    assert (tmp_path / "s/trials.jsonl").read_text().splitlines()[1] == lines[2]


def test_a_pair_differs_in_its_key_and_what_hangs_on_it_alone(rows, tmp_path):
    path = write_sweep(tmp_path, rows, trials=5, pair="model.sml.enabled")
    found = drawn(path, 99)
    assert [each["id"] for each in found] == list(range(10))
    for off, on in zip(found[::2], found[1::2], strict=True):
        assert not off["params"]["model.sml.enabled"] and on["params"]["model.sml.enabled"]
        assert {key: on["params"][key] for key in off["params"] if key != "model.sml.enabled"}.items() <= off["params"].items()
    records = opened(path)[1].records
    assert [records[id].pair for id in range(4)] == [0, 0, 1, 1] and records[0].point == 0 and records[2].point is None


def test_a_grid_leaves_out_what_the_points_have(rows, tmp_path):
    space = {"embedding.lr": {"grid": [0.05, 0.01]}, "train.lr": {"choice": [0.001, 0.01]}}
    found = drawn(write_sweep(tmp_path, rows, space=space, search={"name": "grid"}, trials=1), 99)
    assert [tuple(each["params"].values()) for each in found] == [(0.05, 0.001), (0.05, 0.01), (0.01, 0.001), (0.01, 0.01)]


def test_as_many_as_there_is_room_for_begin_at_once_and_one_more_is_drawn_ahead(rows, tmp_path):
    blueprint, books = opened(write_sweep(tmp_path, rows, trials=9))
    search = Search(blueprint, books)
    search.slots = 2
    assert [search.suggest("")["given"]["id"] for _ in range(2)] == [0, 1] and search.suggest("") is None
    for id in (0, 1):
        books.begin(id)
    assert search.suggest("")["given"]["id"] == 2 and search.suggest("") is None
    ended(books, 0, 0.7)
    assert search.suggest("") is None  # trial 2 waits for room still
    books.begin(2)
    assert search.suggest("")["given"]["id"] == 3


@pytest.mark.parametrize("name", ["random", "optuna"])
@pytest.mark.parametrize("pair", [None, "model.sml.enabled"])
def test_no_settings_are_run_twice_and_a_small_space_is_used_up(rows, tmp_path, name, pair):
    """All trials that have ended have the same value, so that TPE has no reason to leave what it knows."""
    space = {"model.sml.enabled": {"choice": [False, True]}, "embedding.lr": {"choice": [0.01, 0.02, 0.05]}}
    path = write_sweep(tmp_path, rows, space=space, trials=40, search={"name": name, "startup": 2}, pair=pair)
    blueprint, books = opened(path)
    search, found = Search(blueprint, books), []
    while (each := search.suggest("")) != "FINISHED":
        found.append(json.dumps(each["given"]["params"], sort_keys=True))
        ended(books, each["given"]["id"], 0.7)
        search.tell(books.records[each["given"]["id"]])
    assert len(found) == len(set(found)) == 6


def test_optuna_leans_to_where_trials_were_good(rows, tmp_path):
    """Twelve trials say that small rates are good; what is drawn then is smaller than what is drawn blindly."""
    space, means = {"embedding.lr": {"uniform": [0, 1]}}, {}
    for name in ("random", "optuna"):
        path = write_sweep(tmp_path / name, rows, space=space, trials=40, search={"name": name, "startup": 8}, points=[])
        blueprint, books = opened(path)
        books.add(Record(id, {"embedding.lr": (id + 0.5) / 12}, f"trials/{id:05d}") for id in range(12))
        for id in range(12):
            ended(books, id, 0.9 - id / 20)
        means[name] = sum(each["params"]["embedding.lr"] for each in drawn(path, 20)) / 20
    assert means["optuna"] < 0.5 * means["random"], means


def test_asha_decides_after_a_restart_as_if_there_had_been_none(rows, tmp_path):
    blueprint, books = opened(write_sweep(tmp_path, rows, scheduler={"name": "asha", "grace": 1, "reduction": 2}))
    values = [(0.6, 0.7, 0.8), (0.7, 0.75, 0.85), (0.55, 0.6, 0.6), (0.65, 0.74, 0.79), (0.8, 0.9, 0.95)]
    books.add(Record(id, {}, f"trials/{id:05d}") for id in range(5))
    whole = make_scheduler(blueprint, Books(Path(tmp_path / "none"), "auc"), 48_000)
    whole.books.records = {id: Record(id, {}, "") for id in range(5)}
    expected = {(id, epoch): asked(whole, id, epoch, value[epoch - 1]) for id, value in enumerate(values) for epoch in (1, 2)}
    for id in (0, 1, 2):
        books.begin(id)
        ended(books, id, *values[id][: 1 if expected[id, 1] == "STOP" else 2])
    again = make_scheduler(blueprint, books, 48_000)
    found = {(id, epoch): asked(again, id, epoch, values[id][epoch - 1]) for id in (3, 4) for epoch in (1, 2)}
    assert found == {key: decision for key, decision in expected.items() if key[0] in (3, 4)}
    assert "STOP" in expected.values() and "CONTINUE" in expected.values()


def test_a_population_that_goes_on_knows_every_score_and_whose_turn_it_is(rows, tmp_path):
    """Of eight trials cut off after 5 epochs, changed at the fourth, none is due before the eighth; then the worst takes from the best."""
    space, exploits = {"embedding.lr": {"loguniform": [1e-3, 0.2]}}, []
    blueprint, books = opened(write_sweep(tmp_path, rows, space=space, trials=8, scheduler={"name": "pbt", "interval": 4}))
    books.add(Record(id, {"embedding.lr": 0.05}, f"trials/{id:05d}") for id in range(8))
    for id, epoch in itertools.product(range(8), range(1, 6)):
        books.evaluated(id, {"rows": 8_000 * epoch, "step": epoch, "epoch": epoch, "auc": (0.7 if epoch < 5 else 0.6) + id / 100})
    scheduler = make_scheduler(blueprint, books, 96_000)
    scheduler.set_search_properties("auc", "max")
    scheduler._exploit = lambda controller, taker, donor: exploits.append((taker, donor))
    unlimited = {"run_metadata.checkpoint_manager.checkpoint_config.num_to_keep": None}
    population = [Mock(config={"given": {"id": id}}, is_finished=lambda: False, **unlimited) for id in range(8)]
    controller = SimpleNamespace(search_alg=None, get_trials=lambda: population, _schedule_trial_save=lambda *_, **__: "kept")
    for trial in population:
        scheduler.on_trial_add(controller, trial)
    for epoch, id in ((6, 0), (8, 7), (8, 6), (7, 1), (8, 0)):
        scheduler.on_trial_result(controller, population[id], {"rows": 8_000 * epoch, "auc": 0.7 + id / 100})
        assert bool(exploits) == ((epoch, id) == (8, 0))
    ((taker, donor),) = exploits
    assert taker is population[0] and donor in population[6:]


def asked(scheduler, id: int, epoch: int, value: float) -> str:
    trial = SimpleNamespace(trial_id=str(id), config={"given": {"id": id}})
    scheduler.set_search_properties("auc", "max")
    if epoch == 1:
        scheduler.on_trial_add(None, trial)
    return scheduler.on_trial_result(None, trial, {"rows": 8_000 * epoch, "auc": value})
