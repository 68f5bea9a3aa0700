"""`sml-dist study online CONFIG`: logs in time order, one pass, predict then train, under every normaliser and batch size.

It is the ground on which arXiv:2210.10725 puts MTN against batch norm: one row must train and serve as a thousand do. A pass that is
done is not done again: its curve lies in cells/.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sml_dist.config.data import DataConfig
from sml_dist.config.run import RunConfig, RunSection, rooted
from sml_dist.config.settings import load_settings
from sml_dist.data.dataset import fingerprint, read_manifest
from sml_dist.spec import to_dict
from sml_dist.stages import ShowStage, silent
from sml_dist.studies.online_config import OnlineConfig
from sml_dist.studies.online_page import page
from sml_dist.studies.online_plots import plot_all
from sml_dist.studies.online_verdicts import HEADS, Arm, Curves, Setting, compare
from sml_dist.studies.tasks import as_they_end
from sml_dist.tabular import Row, write_csv
from sml_dist.whole_files import WholeFiles


class Pass(NamedTuple):
    """One pass: an arm in a setting, with what the search varies."""

    setting: Setting
    arm: Arm
    factor: float
    init_std: float
    seed: int
    rows: int


def check(config_path: str, overrides: list[str] | None) -> OnlineConfig:
    """The configuration, whose logs are there. Raises InputError for what is wrong in it."""
    config = load_settings(OnlineConfig, config_path, overrides)
    for log in config.logs.values():
        read_manifest(log.path)
    return config


def run(config_path: str, overrides: list[str] | None, output: str, show: ShowStage = silent) -> dict[str, Any]:
    """Makes the passes that are missing, then writes `output`/: curves.csv, passes.csv, pairs.csv, PNG, README.md. Ray must run."""
    config, folder = check(config_path, overrides), Path(output).absolute()
    cells = folder / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    chosen = choose(config, cells, show)
    wanted = [one._replace(seed=seed, rows=rows_of(config, one.setting)) for one in chosen for seed in config.seeds]
    results = dict(zip(wanted, finished(config, wanted, cells, "passes", show), strict=True))
    curves: Curves = {}
    for one, result in results.items():
        curves.setdefault((one.setting, one.arm), []).append(result)
    pairs = compare(config.sides, curves, config.margin)
    write_csv(folder / "passes.csv", [summary(one, result) for one, result in results.items()])
    write_csv(folder / "curves.csv", [labels(one) | row for one, result in results.items() for row in result.get("curve", [])])
    write_csv(folder / "pairs.csv", [pair.row() for pair in pairs])
    plot_all(folder, config.sides, curves, pairs)
    (folder / "README.md").write_text(page(config, curves, pairs, [labels(one) for one in chosen]))
    return {"study": "online", "folder": str(folder), "passes": len(wanted), "pairs": [pair.row() for pair in pairs]}


def settings(config: OnlineConfig) -> Iterable[Setting]:
    return (Setting(name, size) for name, log in config.logs.items() for size in log.rows)


def rows_of(config: OnlineConfig, setting: Setting) -> int:
    return config.logs[setting.log].rows[setting.size]


def choose(config: OnlineConfig, folder: Path, show: ShowStage) -> list[Pass]:
    """For every setting and arm the pass of its search with the least cumulative logloss."""
    search, wanted = config.search, []
    for setting, arm in itertools.product(settings(config), map(Arm._make, itertools.product(config.normalisers, HEADS))):
        rows = max(1, round(search.share * rows_of(config, setting)))
        tried = itertools.product(search.factors, search.init_std)
        wanted.append([Pass(setting, arm, factor, std, search.seed, rows) for factor, std in tried])
    results = iter(finished(config, [one for group in wanted for one in group], folder, "search", show))
    return [min(((last_logloss(next(results)), i, one) for i, one in enumerate(group)))[2] for group in wanted]


def last_logloss(result: dict[str, Any]) -> float:
    return result["curve"][-1]["logloss"] if "curve" in result else float("inf")


def finished(config: OnlineConfig, wanted: Sequence[Pass], folder: Path, stage: str, show: ShowStage) -> list[dict[str, Any]]:
    """Every pass' {"curve"} or {"fault"}, in order; those that are missing as Ray tasks, as many at once as there is room for."""
    runs = [run_config(config, one) for one in wanted]
    prints = {name: fingerprint(log.path) for name, log in config.logs.items()}
    paths = [folder / f"{name_of(one, run, config.windows, prints)}.json" for one, run in zip(wanted, runs, strict=True)]
    results: list[Any] = [json.loads(path.read_text()) if path.is_file() else None for path in paths]
    todo = [i for i, result in enumerate(results) if result is None]
    done = len(wanted) - len(todo)
    show(stage, done, len(wanted))
    for i, result in as_they_end(curve_of, {i: (rooted(runs[i]), config.windows) for i in todo}, config.cpus, lambda i: paths[i].stem):
        WholeFiles(folder).write(paths[i].name, json.dumps(result))
        results[i], done = result, done + 1
        show(stage, done, len(wanted))
    return results


def curve_of(config: RunConfig, windows: int) -> dict[str, Any]:
    """A pass in a Ray task."""
    from sml_dist.studies.progressive import CannotLearn, progressive
    from sml_dist.train.in_process import one_process

    try:
        with one_process(config.train.threads):
            return {"curve": progressive(config).curve(windows)}
    except CannotLearn as fault:
        return {"fault": str(fault)}


def run_config(config: OnlineConfig, one: Pass) -> RunConfig:
    replace = dataclasses.replace
    train, embedding, size = config.train, config.embedding, one.setting.size
    threads = max(1, int(config.cpus))
    return RunConfig(
        run=RunSection(name="online"),
        data=DataConfig(path=config.logs[one.setting.log].path, streams=1, shuffle=False),
        model=replace(config.model, sml=replace(config.normalisers[one.arm.normaliser], skip=one.arm.head == "skip")),
        embedding=replace(embedding, lr=embedding.lr * one.factor, init_std=one.init_std),
        train=replace(
            train, lr=train.lr * one.factor, global_batch_size=size, max_steps=-(-one.rows // size), seed=one.seed, threads=threads
        ),
    )


def name_of(one: Pass, run: RunConfig, windows: int, prints: dict[str, str]) -> str:
    """What the pass is, and by a hash of its configuration and data that nothing else is taken for it."""
    raw = {key: value for key, value in to_dict(run).items() if key != "run"}
    code = hashlib.sha256(json.dumps([raw, windows, prints[one.setting.log]], sort_keys=True).encode()).hexdigest()[:10]
    return "-".join([one.setting.log, str(one.setting.size), one.arm.normaliser, one.arm.head, f"seed{one.seed}", code])


def labels(one: Pass) -> Row:
    return {**one.setting._asdict(), **one.arm._asdict(), "factor": one.factor, "init_std": one.init_std, "seed": one.seed}


def summary(one: Pass, result: dict[str, Any]) -> Row:
    last = result["curve"][-1] if "curve" in result else {}
    return labels(one) | {name: last.get(name) for name in ("rows", "logloss", "auc")} | {"fault": result.get("fault")}
