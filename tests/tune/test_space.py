"""The space is walked branch by branch, and what a trial could not run with is refused before one starts."""

import itertools
import json
from collections import Counter

import numpy as np
import optuna
import pytest

from sml_dist.config.run import RunConfig
from sml_dist.config.tune import Dimension
from sml_dist.data.synthetic import synth
from sml_dist.spec import InputError, from_dict
from sml_dist.tune.blueprint import Blueprint
from sml_dist.tune.space import Space
from tests.tune.sweeps import SPACE, write_sweep

ON, LEARNER, RANK = "model.sml.enabled", "model.sml.mtn.learner", "model.sml.mtn.rank"


def space(**dimensions) -> Space:
    return Space({key.replace("__", "."): from_dict(Dimension, value) for key, value in dimensions.items()})


def test_a_key_is_set_exactly_in_the_branches_that_have_it():
    found = Space({key: from_dict(Dimension, value) for key, value in SPACE.items()})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [found.suggested(study.ask()) for _ in range(60)]
    for point in points:
        assert (LEARNER in point) == point["model.sml.enabled"] and (RANK in point) == (point.get(LEARNER) == "lowrank")
        assert point["model.tower.hidden"] in ([8], [16, 8]) and 1e-3 <= point["embedding.lr"] <= 0.2
    assert {len(point) for point in points} == {3, 4, 5}


def test_a_grid_has_every_combination_once():
    found = space(a={"choice": [1, 2]}, b={"grid": ["x", "y"], "when": {"a": 2}}, c={"grid": [None, [3]]})
    assert list(found.grid()) == [
        {"a": 1, "c": None}, {"a": 1, "c": [3]}, *({"a": 2, "b": b, "c": c} for b, c in itertools.product(["x", "y"], [None, [3]])),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"space.a: a grid needs its values; give grid"):
        list(space(a={"uniform": [0, 1]}).grid())


def test_a_changed_number_stays_in_its_range_and_on_its_steps():
    found = space(a={"uniform": [0, 1]}, b={"quniform": [0.0, 1.0, 0.25]}, c={"randint": [2, 5]}, d={"choice": ["x"]})
    assert [found.nearest(key, 1.3) for key in "ab"] == [1, 1] and found.nearest("b", 0.3) == 0.25
    assert found.nearest("c", 6) == 5 and found.nearest("d", "x") == "x"


def test_of_a_stepped_range_every_value_is_drawn_anew_as_often():
    found, random = space(a={"quniform": [0.1, 0.5, 0.1]}, b={"randint": [1, 4]}), np.random.default_rng(0)
    for key, values in (("a", [0.1, 0.2, 0.3, 0.4, 0.5]), ("b", [1, 2, 3, 4])):
        drawn = Counter(found.at_random(key, random) for _ in range(4_000))
        assert sorted(drawn) == values == [found.nearest(key, value) for value in values]
        assert all(abs(number * len(values) / 4_000 - 1) < 0.1 for number in drawn.values()), drawn


def test_a_whole_number_in_the_space_is_the_configurations_float(rows, tmp_path):
    space = {"model.tower.dropout": {"choice": [0, 0.5]}, "model.tower.norm": {"choice": ["none"], "when": {"model.tower.dropout": 0.0}}}
    blueprint = Blueprint.read(write_sweep(tmp_path, rows, space=space))
    assert blueprint.check() and str(blueprint.point(0)) == "{'model.tower.dropout': 0, 'model.tower.norm': 'none'}"
    found = Space({"a": from_dict(Dimension, {"choice": [0, 1]}), "b": from_dict(Dimension, {"choice": [False, True]})})
    assert not found.own("a", True) and not found.own("b", 1)


def test_trials_have_the_points_values_and_the_types_of_the_configuration(rows, tmp_path):
    blueprint = Blueprint.read(write_sweep(tmp_path, rows, points=[{}, {"model.sml.enabled": True, LEARNER: "lowrank", RANK: 3}]))
    assert blueprint.check() == 6 * 8_000
    default, second = (blueprint.trial(number, blueprint.point(number)) for number in (0, 1))
    assert isinstance(default, RunConfig) and not default.model.sml.enabled and default.embedding.lr == 0.05
    assert second.model.sml.enabled and second.model.sml.mtn.rank == 3 and second.model.tower.hidden == (8,)
    assert default.run.folder == str(tmp_path / "s/trials/00000") and default.train.monitor == "auc" and default.train.threads == 1
    best = blueprint.best(blueprint.point(1))
    assert (best.run.name, best.run.storage, best.train.threads, best.model) == ("s-best", "runs", None, second.model)


@pytest.mark.parametrize(("batch", "every", "steps"), [(256, 0.5, 16), (320, 0.5, 13), (320, 0.28, 7), (320, 1.5, 38), (320, 1e-9, 1)])
def test_a_trial_of_any_batch_size_reaches_each_epoch_with_the_same_evaluation(rows, tmp_path, batch, every, steps):
    """An epoch has 8,000 rows; 25 steps of it by 0.28 are 7.000000000000001."""
    blueprint = Blueprint.read(write_sweep(tmp_path, rows, base={"train": {"global_batch_size": batch}}, evaluate_every=every))
    assert blueprint.trial(0, {}).train.eval_every_steps == steps


def test_of_a_killed_trials_evaluations_those_that_it_wrote_down_whole_are_found(rows, tmp_path):
    blueprint, run = Blueprint.read(write_sweep(tmp_path, rows)), tmp_path / "s/trials/00000"
    assert blueprint.evaluations(0, {}) == []
    run.mkdir(parents=True)
    line = json.dumps({"split": "valid", "step": 32, "epoch": 1, "auc": 0.7})
    (run / "metrics.jsonl").write_text(f'{{"step": 10}}\n{line[:9]}\n{line}\n{line[:20]}')
    assert [each["rows"] for each in blueprint.evaluations(0, {})] == [8_000]


def test_paths_in_the_space_are_of_the_commands_folder(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(rows)
    blueprint = Blueprint.read(write_sweep(tmp_path, rows, space={"data.path": {"choice": ["data"]}, "run.warm_start": {"choice": ["a"]}}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    trial = blueprint.trial(0, {"data.path": "data", "run.warm_start": "a"})
    assert (trial.data.path, trial.run.warm_start) == (str(tmp_path / "data"), str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"space": {"train.epoch": {"choice": [1]}}}, "space.train.epoch: 1: train.epoch is not a key; did you mean train.epochs?"),
        ({"space": {"train.lr": {"uniform": [-1, 1]}}}, "space.train.lr: -1.0: train.lr: input should be greater than 0"),
        ({"space": {"train.global_batch_size": {"choice": [256, 250]}}}, "250: train.global_batch_size 250 is not divisible by"),
        ({"space": {"train.lr": {"uniform": [1, 1]}}}, r"space.train.lr: .*uniform \(1.0, 1.0\) is empty"),
        ({"space": {"train.lr": {"choice": [0.1, float("inf")]}}}, r"space.train.lr: choice .* has a number that is not finite; give"),
        ({"space": {"train.lr": {}}}, "give one of choice, grid, uniform, loguniform, quniform, randint .got none"),
        ({"space": {"train.lr": {"choice": [0.1], "when": {"model.name": "dnn"}}}}, "when model.name: no such key further up in the space"),
        ({"space": {"train.lr": {"choice": [0.1]}}}, "first trial is the base itself, and its train.lr 0.001 is not in"),
        ({"space": {"train.lr": {"choice": [0.1]}}, "points": [{}, {}]}, r"points.0.: the base's train.lr 0.001 is not in the space; add"),
        ({"points": [{"embedding.lr": 7}]}, r"points.0.: embedding.lr 7 is not in the space"),
        ({"points": [{"lr": 7}]}, r"points.0.: lr is not a key of the space"),
        ({"trials": 1, "points": [{}, {"embedding.lr": 0.1}]}, "points: 2 of them are more than trials=1; take some out, or set trials=2"),
        ({"points": [{"embedding.lr": 0.1}, {}, {"embedding.lr": 0.05}]}, r"points.1. and points.2. come to the same parameters .*lr"),
        ({"space": {"train.lr": {"loguniform": [0.1, 2]}}, "points": [{"train.lr": 1}, {"train.lr": 1.0}]}, r".0. and points.1. come"),
        ({"pair": ON, "points": [{}, {ON: True}]}, r"points.0. and points.1. come to the same parameters \(model.tower.hidden \[8\], "),
        ({"pair": "train.lr"}, "pair train.lr is not in the space"),
        ({"pair": RANK}, "pair model.sml.mtn.rank has a `when`"),
        ({"scheduler": {"name": "asha", "grace": 7}}, "scheduler.grace 7 is longer than a trial of 6 epochs"),
        ({"scheduler": {"name": "pbt"}, "space": {"model.tower.hidden": {"choice": [[8]]}}}, "model.tower.hidden cannot change within"),
        ({"space": {"data.path": {"choice": [3]}}}, r"^data.path: input should be a valid string \(got 3\)$"),
        ({"metric": "gauc"}, r"^metric gauc needs a dataset with a group; name one in the schema of .*, or set metric=auc$"),
        ({"space": {"train.num_workers": {"choice": [1, 2]}}}, "space.train.num_workers is the same for all trials of a sweep"),
        (
            {"space": {"model.sml.norm": {"choice": ["mtn", "dyt"]}, LEARNER: {"choice": ["dense"], "when": {"model.sml.norm": "layer"}}}},
            "space.model.sml.mtn.learner: when model.sml.norm: 'layer' is none of its values",
        ),
        ({"trails": 3}, "trails is not a key; did you mean trials"),
    ],
)  # fmt: skip
def test_what_no_trial_could_run_with_is_one_line(rows, tmp_path, changes, line):
    with pytest.raises(InputError, match=line) as error:
        Blueprint.read(write_sweep(tmp_path, rows, **changes)).check()
    assert "\n" not in str(error.value)


def test_every_dataset_of_the_space_has_rows_to_take_the_metric_on(rows, tmp_path):
    data = str(tmp_path / "data")
    synth(1_000, data, fields=3, dense=2, table_rows=60, valid=0.0)
    with pytest.raises(InputError, match=f"^{data} has no valid rows; prepare it with a split rule that gives it some$"):
        Blueprint.read(write_sweep(tmp_path, rows, space={"data.path": {"choice": [rows, data]}}, metric="ne")).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {"name": "grid"}, "space": {"embedding.lr": {"grid": [0.05, 0.1]}}, "trials": 1, "points": [{}, {"embedding.lr": 0.1}]},
        {"scheduler": {"name": "pbt"}, "space": {"embedding.lr": {"uniform": [0.01, 0.1]}}, "points": [{}, {}]},
        {"points": [{ON: True, LEARNER: "lowrank", RANK: rank} for rank in (2, 3)], "trials": 2},
        {"points": [{}, {ON: True}], "trials": 2},
    ],
)
def test_points_that_the_trials_have_room_for_and_of_which_none_is_anothers_like_are_taken(rows, tmp_path, changes):
    """Of a grid `trials` says nothing, and a population may have a point twice."""
    assert Blueprint.read(write_sweep(tmp_path, rows, base={"train": {"record_rows": False}}, **changes)).check()
