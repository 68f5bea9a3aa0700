"""The books of a sweep: trials.jsonl, from which it goes on after a kill and which reports read.

The folder of a sweep, `storage`/`name`:

    sweep.yaml         the sweep's configuration, resolved (config/tune.py: SweepConfig)
    base.yaml          the configuration that its trials vary, resolved (config/run.py: RunConfig)
    data.json          {dataset: hash}, of all that its trials may read
    trials.jsonl       one line a trial, in the order of their ids: see Record
    trials/00007/      the run folder of trial 7, as of any run (train/report.py): config.yaml, metrics.jsonl, summary.json
                       where it came to its end, checkpoints/ while it runs and of the best trials
    best.yaml          the best trial's configuration, ready for `sml-dist train`
    pairs.csv          with `pair`: the paired differences
    README.md          the table of trials, best first, and what was found

trials.jsonl is written anew, whole, at every event; a reader sees it before the event or after it.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sml_dist.config.metrics import METRICS
from sml_dist.spec import InputError
from sml_dist.train.report import RunFolder, finite

FILE = "trials.jsonl"


@dataclass
class Record:
    """A trial.

    id: from 0 on, in the order in which trials were drawn; its run is `run`, relative to the sweep's folder.
    status: running (or cut off by a kill: it goes on when the sweep does), finished (to its end), stopped (by the
        scheduler), cut (by a budget, or it failed and is to be tried again), failed (see `error`).
    params: the searched keys, dotted, that are in force: base + params is the trial's configuration. Keys of other branches
        are left out. Under population based training, of the last exploit.
    point: its number among `points`, for those that were not drawn. pair: the number of its draw, with `pair`.
    history: of each evaluation on the validation rows {"rows" trained on, "step", "epoch" (whole ones), "time" (Unix),
        "auc", "logloss", "ne", "calibration" and "gauc" as far as they are numbers}, in the order of rows; up to an exploit the donor's.
    value: the best of the metric in its history. summary: the run's summary.json, where it finished.
    exploits: under population based training, [{"step", "from": the donor's id, "params": from then on}].
    started, ended: Unix times; seconds: of work, over all attempts.
    """

    id: int
    params: dict[str, Any]
    run: str
    status: Literal["running", "finished", "stopped", "cut", "failed"] = "running"
    point: int | None = None
    pair: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    value: float | None = None
    summary: dict[str, Any] | None = None
    exploits: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    attempts: int = 0
    started: float | None = None
    ended: float | None = None
    seconds: float = 0.0

    @property
    def ended_for_good(self) -> bool:
        return self.status in ("finished", "stopped", "failed")

    @property
    def rows(self) -> int:
        """Trained on, as far as was reported."""
        return self.history[-1]["rows"] if self.history else 0


class Books:
    """All trials of a sweep, by id."""

    def __init__(self, folder: Path, sign: int, metric: str):
        self.folder, self.sign, self.metric = folder, sign, metric
        self.records = {record.id: record for record in read_trials(folder)}
        self.since: dict[int, float] = {}  # when the running ones began, by the monotonic clock
        # at an event the line of its trial alone is made anew
        self.lines = {id: as_line(record) for id, record in self.records.items()}

    def reopen(self) -> None:
        """Trials that failed are to be tried again, from the beginning, for they have no checkpoints; till then they keep their error."""
        for record in [each for each in self.records.values() if each.status == "failed"]:
            RunFolder(self.folder / record.run).forget_after(0)
            record.status, record.history, record.value, record.exploits = "cut", [], None, []
            self.write(record)

    def close(self) -> None:
        """Those that were not tried again, for want of a budget, stay failed."""
        for record in [each for each in self.records.values() if each.status == "cut" and each.error]:
            record.status = "failed"
            self.write(record)

    def add(self, records: Iterable[Record]) -> None:
        added = {record.id: record for record in records}
        self.records |= added
        self.write(*added.values())

    def begin(self, id: int) -> None:
        record = self.records[id]
        record.status, record.attempts, record.ended, record.error = "running", record.attempts + 1, None, None
        record.started = record.started or round(time.time(), 3)
        self.since[id] = time.monotonic()
        self.write(record)

    def evaluated(self, id: int, evaluation: dict[str, Any]) -> None:
        """Adds to the history; what lies at as many rows or more was of an attempt that went back, or of another's tables."""
        record = self.records[id]
        earlier = [each for each in record.history if each["rows"] < evaluation["rows"]]
        self._write_history(record, [*earlier, kept(evaluation)])

    def recover(self, id: int, evaluations: Iterable[dict[str, Any]]) -> None:
        """Takes up evaluations that a run wrote down and that did not come here before a kill."""
        record = self.records[id]
        known = {each["rows"] for each in record.history}
        missing = [kept(each) for each in evaluations if each["rows"] not in known]
        self._write_history(record, sorted([*record.history, *missing], key=lambda each: each["rows"]))

    def _write_history(self, record: Record, history: list[dict[str, Any]]) -> None:
        record.history = history
        self._value(record)
        self._count(record)
        self.write(record)

    def exploited(self, id: int, exploit: dict[str, Any]) -> None:
        record = self.records[id]
        record.exploits.append(exploit)
        record.params = exploit["params"]
        donor = self.records[exploit["from"]]  # whose checkpoint, best weights included, is the trial's now, and so is what led to it
        record.history = [each for each in donor.history if each["step"] <= exploit["step"]]
        self._value(record)
        self.write(record)

    def end(self, id: int, status: str, *, summary: dict[str, Any] | None = None, error: str | None = None) -> None:
        record = self.records[id]
        self._count(record)
        self.since.pop(id, None)
        record.status, record.summary, record.error, record.ended = status, summary, error, round(time.time(), 3)
        self.write(record)

    def ranked(self) -> list[Record]:
        """Those with a value that did not fail, best first."""
        found = [each for each in self.records.values() if each.value is not None and each.status != "failed"]
        return sorted(found, key=lambda each: -self.sign * each.value)

    def write(self, *changed: Record) -> None:
        self.lines |= {record.id: as_line(record) for record in changed}
        RunFolder(self.folder).write(FILE, "".join(self.lines[id] for id in sorted(self.lines)))

    def _value(self, record: Record) -> None:
        values = [self.sign * each[self.metric] for each in record.history if self.metric in each]
        record.value = self.sign * max(values) if values else None

    def _count(self, record: Record) -> None:
        if record.id in self.since:
            now = time.monotonic()
            record.seconds = round(record.seconds + now - self.since[record.id], 3)
            self.since[record.id] = now


def kept(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What a history keeps of an evaluation: of the metrics those that are numbers."""
    evaluation = finite(evaluation)
    found = {name: evaluation[name] for name in ("rows", "step", "epoch", *METRICS) if evaluation.get(name) is not None}
    return found | {"time": evaluation.get("time", round(time.time(), 3))}


def as_line(record: Record) -> str:
    return json.dumps(finite(vars(record))) + "\n"


def read_trials(folder: Path) -> Iterable[Record]:
    """The trials of a sweep's folder, by id; none where it has not begun. Raises InputError that names a line that is none."""
    for number, line in enumerate(RunFolder(folder).read_runs(FILE), start=1):
        try:
            yield Record(**line)
        except TypeError as error:
            what = f"{folder / FILE}, line {number} is no trial of this version ({str(error).removeprefix('Record.__init__() ')})"
            raise InputError(f"{what}; go on with the version that wrote it, or take away the line and its run's folder") from None
