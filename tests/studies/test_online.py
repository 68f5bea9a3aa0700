"""The online study: what its rule says of numbers, and a tiny study from end to end."""

import csv
import dataclasses
import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sml_dist.config.run import RunConfig
from sml_dist.config.settings import load_settings
from sml_dist.data.synthetic import synth
from sml_dist.models.lr import LRConfig
from sml_dist.spec import InputError, RunError
from sml_dist.statistics import paired
from sml_dist.studies import online
from sml_dist.studies.online import Pass, name_of, run, run_config
from sml_dist.studies.online_config import OnlineConfig
from sml_dist.studies.online_verdicts import Arm, Setting, Sides, answer, compare, verdict

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/studies/online.yaml")
SML, PLAIN, BATCH = Arm("mtn", "skip"), Arm("none", "last"), Arm("batch norm", "last")
HERE = Setting("log", 16)


def results(*loglosses: float) -> list[dict]:
    return [{"curve": [{"logloss": value, "auc": 1 - value}]} for value in loglosses]


def judged(sml: list[dict], plain: list[dict], batch: list[dict], margin: float = 0.0) -> dict:
    curves = {(HERE, SML): sml, (HERE, PLAIN): plain, (HERE, BATCH): batch}
    sides = Sides(SML, PLAIN)
    return answer(sides, compare(sides, curves, margin), HERE, "logloss")


def test_a_verdict_needs_the_whole_interval_beyond_the_margin():
    better = paired([0.010, 0.011, 0.012], 1e-4)
    assert verdict(better, 0.005) == "wins" and verdict(paired([-0.010, -0.011, -0.012], 1e-4), 0.005) == "loses"
    assert verdict(better, 0.010) == "ties"
    assert verdict(paired([0.01, -0.01, 0.02], 1e-4), 0) == "ties"
    assert verdict(paired([0.5], 1e-4), 0) == "ties"


def test_sml_is_right_where_it_loses_to_none_and_wins_over_the_plain_model():
    low, high = results(0.50, 0.51, 0.52), results(0.60, 0.61, 0.62)
    assert judged(low, high, high)["right choice"] == "yes"
    assert judged(low, low, high)["right choice"] == "undecided"
    lost = judged(high, high, low)
    assert lost["right choice"] == "no" and lost["loses to"] == "batch norm, last"
    assert judged(low, high, high, margin=0.2)["right choice"] == "undecided"


def test_seeds_are_paired():
    """Noise that both arms share does not hide a difference that every seed shows."""
    assert judged(results(0.50, 0.70, 0.60), results(0.512, 0.711, 0.613), results(0.61, 0.82, 0.70))["right choice"] == "yes"


def test_an_arm_that_cannot_loses_to_one_that_can():
    fault, fine = [{"fault": "batch norm"}] * 3, results(0.5, 0.5, 0.5)
    assert judged(fine, results(0.6, 0.6, 0.6), fault)["wins"] == 2
    assert judged([*fine[:2], fault[0]], fine, fault) == {
        "setting": "log, 16", "wins": 0, "ties": 1, "loses": 1, "right choice": "no", "loses to": "none, last",
    }  # fmt: skip


def test_the_shipped_configuration_puts_every_normaliser_in_the_same_place():
    config = load_settings(OnlineConfig, CONFIG)
    assert set(config.normalisers) == {"none", "batch norm", "layer norm", "layer variance", "dyt", "fixed tanh", "mtn"}
    places = {sml.mtn.placement for name, sml in config.normalisers.items() if name != config.plain}
    assert places == {"hidden"} and all(sml.enabled for sml in config.normalisers.values())
    assert all(set(log.rows) == {1, 16, 256, 4096} for log in config.logs.values())


def test_an_arm_is_what_its_name_says_and_passes_have_names_of_their_own():
    config = load_settings(OnlineConfig, CONFIG)
    one = Pass(Setting("ml1m", 16), Arm("dyt", "skip"), 3.0, 0.1, 7, 100)
    made = run_config(config, one)
    assert (made.model.sml.norm, made.model.sml.skip, made.model.sml.mtn.placement) == ("dyt", True, "hidden")
    assert made.train.lr == pytest.approx(3 * config.train.lr) and made.embedding.lr == pytest.approx(3 * config.embedding.lr)
    assert (made.train.global_batch_size, made.train.max_steps, made.train.seed, made.embedding.init_std) == (16, 7, 7, 0.1)
    others = [
        one,
        one._replace(seed=8),
        one._replace(rows=200),
        one._replace(arm=Arm("dyt", "last")),
        one._replace(factor=1.0),
        one._replace(init_std=0.01),
    ]
    names = {name_of(other, run_config(config, other), 20, {"ml1m": "print"}) for other in others}
    names |= {name_of(one, made, 10, {"ml1m": "print"}), name_of(one, made, 20, {"ml1m": "other data"})}
    assert len(names) == 8


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sml=mtm", "sml or plain names mtm"),
        ("search.seed=3", "search.seed 3 is one of seeds"),
        ("train.schedule=cosine", "train.schedule must be constant"),
        ("windws=3", "windws is not a key; did you mean windows"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_named(override, said):
    with pytest.raises(InputError, match=said):
        load_settings(OnlineConfig, CONFIG, [override])


def test_a_model_without_layers_is_refused():
    with pytest.raises(ValueError, match="model lr has no layer"):
        dataclasses.replace(load_settings(OnlineConfig, CONFIG), model=LRConfig())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("online")
    synth(600, str(folder / "data"), fields=3, dense=2, table_rows=50)
    config = {
        "logs": {"log": {"path": str(folder / "data"), "rows": {1: 20, 64: 500}}},
        "normalisers": {
            "none": {"mtn": {"placement": "none"}},
            "batch norm": {"norm": "batch", "mtn": {"placement": "hidden"}},
            "mtn": {"mtn": {"placement": "hidden"}},
        },
        "model": {"name": "dnn", "tower": {"hidden": [4]}},
        "embedding": {"dim": 4, "sharding": "table_wise"},
        "train": {"precision": "fp32"},
        "search": {"factors": [1, 10], "init_std": [0.1], "share": 0.5},
        "seeds": [1, 2],
        "windows": 3,
        "cpus": 4,  # two passes at once on the instance for tests: each process that Ray starts imports torch
    }
    OmegaConf.save(OmegaConf.create(config), folder / "online.yaml")
    return str(folder / "online.yaml")


def test_a_worker_gets_the_datasets_whole_path(tiny, tmp_path, monkeypatch):
    """Of a cluster that was joined: it has another folder than the command."""
    given: list[RunConfig] = []

    def noted(function, arguments: dict[int, tuple], *_):
        given.extend(run for run, _ in arguments.values())
        return iter(())

    monkeypatch.setattr(online, "as_they_end", noted)
    monkeypatch.chdir(Path(tiny).parent)
    config = load_settings(OnlineConfig, tiny, ["logs.log.path=data"])
    online.finished(config, [Pass(HERE._replace(size=64), SML, 1, 0.1, 1, 64)], tmp_path, "passes", lambda *_: None)
    assert [run.data.path for run in given] == [str(Path(tiny).parent / "data")]


def test_a_study_writes_its_files_and_makes_no_pass_twice(ray_local, tiny, tmp_path):
    told: list[tuple] = []
    online.check(tiny, [])
    found = run(tiny, [], str(tmp_path), lambda *done: told.append(done))
    arms, settings, seeds = 6, 2, 2
    assert told[0] == ("search", 0, 24) and told[-1] == ("passes", 24, 24)
    passes, curves, pairs = (rows(tmp_path / f"{name}.csv") for name in ("passes", "curves", "pairs"))
    assert len(passes) == arms * settings * seeds
    cannot = [row for row in passes if row["fault"]]
    assert {(row["size"], row["normaliser"]) for row in cannot} == {("1", "batch norm")} and len(cannot) == 4
    assert len(curves) == (len(passes) - 4) * 3 and {row["rows"] for row in curves if row["size"] == "64"} == {"170", "341", "512"}
    assert all(0 < float(row["window logloss"]) < 5 for row in curves)

    last = {(row["size"], row["normaliser"], row["head"], row["seed"]): row for row in passes}
    for pair in pairs:
        if not math.isnan(float(pair["mean"])):
            left, right = (tuple(pair[side].rsplit(", ", 1)) for side in ("treatment", "control"))
            values = [[float(last[pair["size"], *arm, seed][pair["metric"]]) for seed in "12"] for arm in (left, right)]
            mean = sum(a - b for a, b in zip(*values, strict=True)) / 2
            assert float(pair["mean"]) == pytest.approx(mean if pair["metric"] == "auc" else -mean)
    text = (tmp_path / "README.md").read_text()
    pictures = {line[line.index("(") + 1 : -1] for line in text.splitlines() if line.startswith("![")}
    assert pictures == {path.name for path in tmp_path.glob("*.png")} and len(pictures) == 2

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    victim = next(path for path in before if "-64-mtn-skip-seed2" in path.name)
    victim.unlink()
    told.clear()
    again = run(tiny, [], str(tmp_path), lambda *done: told.append(done))
    assert told == [("search", 24, 24), ("passes", 23, 24), ("passes", 24, 24)]
    assert str(again["pairs"]) == str(found["pairs"])  # as text, in which nan equals nan
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert after.keys() == before.keys() and all(after[path] == before[path] for path in before if path != victim)


def test_a_fault_of_the_configuration_ends_the_study_with_its_line(ray_local, tiny, tmp_path):
    with pytest.raises(InputError, match="is not a prepared dataset"):
        run(tiny, ["logs.log.path=nowhere"], str(tmp_path))
    with pytest.raises(RunError, match="l2 has no effect under a fused adagrad"):
        run(tiny, ["embedding.optimizer=adagrad", "embedding.l2=0.1"], str(tmp_path))
