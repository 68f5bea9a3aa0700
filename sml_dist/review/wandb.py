"""Weights & Biases: one W&B run for a training run, however often either is started again.

Offline by itself where there is no key, where the server refuses it, and where it cannot be reached: `wandb sync` sends the
folder later. Nothing is ever asked for on the terminal.
"""

import logging
import os
import uuid
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from sml_dist.config.metrics import COMPARABLE, METRICS
from sml_dist.config.run import RunConfig
from sml_dist.review.artifacts import log_dataset_and_model
from sml_dist.review.lines import happened, scalars
from sml_dist.spec import one_line, to_dict
from sml_dist.train.run_folder import RunFolder
from sml_dist.trials import SWEEP, Record, read_trials
from sml_dist.whole_files import WholeFiles

if TYPE_CHECKING:
    import wandb

IDENTITY = "wandb.json"
INIT_SECONDS = 30.0
WORST_FIELDS = 30
ROWS = "rows_seen"  # of a line: trained on until then


class Wandb:
    def __init__(self, folder: RunFolder, config: RunConfig, say: Any):
        self.folder, self.config, self.say = folder, config, say
        self.step, self.told, self.events = 0, False, []
        asked = config.tracking.wandb.mode
        wanted = asked == "online" or (asked == "auto" and os.environ.get("WANDB_MODE", "online") == "online")
        if wanted and self.can_send():
            self.run = self.init("online")
            self.say(f"W&B: {self.run.url}")
        else:
            self.run = self.init("offline")
            self.say(f"W&B is offline; `wandb sync {self.run.settings.sync_dir}` sends what it has")

    def can_send(self) -> bool:
        """Whether there is a key, without asking anyone for one, and a server that takes it: an attempt at an online run that
        fails keeps the run's id from the offline one. Without a network it takes W&B 11 s to see that.
        """
        import wandb
        from wandb.sdk.lib.wbauth import authenticate_session

        try:
            host = wandb.setup(wandb.Settings(silent=True)).settings.base_url
            return authenticate_session(host=host, source="sml-dist", prompt=False, update_session=False, verify=True) is not None
        except wandb.Error as error:
            self.say(f"W&B: {one_line(error)[:200]}")
            return False

    def init(self, mode: str) -> "wandb.Run":
        import wandb

        asked = self.config.tracking.wandb
        run = wandb.init(
            project=asked.project,
            entity=asked.entity,
            group=asked.group,
            name=self.config.run.name,
            id=identity(self.folder),
            resume="allow" if mode == "online" else None,  # which W&B ignores offline, with a warning
            mode=mode,
            dir=os.environ.get("WANDB_DIR", str(self.folder.path)),
            config=to_dict(self.config) | {"sweep": sweep_of(self.folder)},
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_SECONDS),
        )
        for handler in logging.getLogger("wandb").handlers:  # of its own debug.log: on a full disk a traceback for each line
            handler.handleError = lambda record: None
        run.define_metric("*", step_metric=ROWS)  # by which runs of different batch sizes compare
        for name in COMPARABLE:
            run.define_metric(f"valid/{name}", step_metric=ROWS, summary="max" if METRICS[name].sign > 0 else "min")
        return run

    def add(self, line: dict[str, Any]) -> None:
        if not self.told and (about := self.folder.read_json("about.json")):  # which workers write before their first line
            known = {name: about[name] for name in ("dataset", "plan", "versions", "machine")}
            self.run.config.update(known | {"code": self.folder.read_json("code.json")}, allow_val_change=True)
            self.told = True
        self.step = line["step"]
        if values := scalars(line):
            self.run.log(values | {ROWS: line[ROWS]}, step=self.step)
        if text := happened(line):
            self.events.append([self.step, line["event"], text])

    def finish(self, *, failed: bool) -> None:
        if summary := self.folder.read_json("summary.json"):
            self.run.summary.update(summary)  # its valid is the kept checkpoint's; valid/NAME has each metric's best by itself
        if trial := trial_of(self.folder):
            self.run.summary.update({"trial": {"status": trial.status, "value": trial.value}})
        if self.step:  # not where a run that was finished is started once more
            self.run.log(self.tables(), step=self.step)
        if self.config.tracking.wandb.artifacts and summary and not failed:
            log_dataset_and_model(self.run, self.folder, summary)
        self.run.finish(exit_code=int(failed))

    def tables(self) -> dict[str, Any]:
        import wandb

        about, made = self.folder.read_json("about.json") or {}, {}
        if self.events:
            made["tables/events"] = wandb.Table(["step", "event", "what"], self.events)
        if plan := about.get("plan"):
            made["tables/sharding plan"] = table([row | {"ranks": str(row["ranks"])} for row in plan])
        if fields := about.get("fields"):
            made["tables/fields"] = table(fields)
            worst = sorted((f for f in fields if f["unknown_share"] is not None), key=lambda f: -f["unknown_share"])[:WORST_FIELDS]
            if worst:
                title = "Largest share of ids outside the vocabulary (validation sample)"
                made["tables/worst fields"] = wandb.plot.bar(table(worst), "field", "unknown_share", title=title)
        for split in ("valid", "test"):
            if curves := self.folder.read_json(f"curves_{split}.json"):
                made |= plots(split, curves)
        return made


def identity(folder: RunFolder) -> str:
    """The W&B run of a training run: drawn once, kept in its folder."""
    if folder.read_json(IDENTITY) is None:
        folder.write_json(IDENTITY, {"id": uuid.uuid4().hex[:12]})
    return folder.read_json(IDENTITY)["id"]


def trial_of(folder: RunFolder) -> Record | None:
    """What the books of a sweep say of the run, if it is a trial."""
    path = folder.path.resolve()
    return next((trial for trial in read_trials(path.parent.parent) if trial.run == f"{path.parent.name}/{path.name}"), None)


def sweep_of(folder: RunFolder) -> dict[str, Any] | None:
    """The configuration of the sweep that the run is a trial of, its space among it."""
    text = WholeFiles(folder.path.resolve().parent.parent).read(SWEEP)
    return OmegaConf.to_container(OmegaConf.create(text)) if text else None


def table(rows: list[dict[str, Any]]) -> "wandb.Table":
    import wandb

    return wandb.Table(list(rows[0]), [list(row.values()) for row in rows])


def plots(split: str, curves: dict[str, Any]) -> dict[str, Any]:
    """ROC, precision over recall and calibration of a split, as W&B draws them."""
    import wandb

    made = {}
    for key, x, y, title in (
        ("roc", "false_positive_rate", "true_positive_rate", "ROC"),
        ("pr", "recall", "precision", "Precision over recall"),
        ("calibration", "predicted", "observed", "Calibration: click rate seen over predicted"),
    ):
        if key in curves:
            points = wandb.Table([x, y], [list(pair) for pair in zip(curves[key][x], curves[key][y], strict=True)])
            made[f"curves/{split} {key}"] = wandb.plot.line(points, x, y, title=f"{title} ({split})")
    return made
