"""The books of a sweep: trials.jsonl, from which it goes on after a kill and which reports read.

The folder of a sweep, `storage`/`name`:

    sweep.yaml         the sweep's configuration, resolved (config/tune.py: SweepConfig)
    base.yaml          the configuration that its trials vary, resolved (config/run.py: RunConfig)
    data.json          {dataset: hash}, of all that its trials may read
    trials.jsonl       one line a trial, in the order of their ids: see Record (trials.py)
    trials/00007/      the run folder of trial 7, as of any run (train/run_folder.py): config.yaml, metrics.jsonl, summary.json
                       where it came to its end, checkpoints/ while it runs and of the best trials
    best.yaml          the best trial's configuration, ready for `sml-dist train`
    pairs.csv          with `pair`: the paired differences
    README.md          the table of trials, best first, and what was found

trials.jsonl is written anew, whole, at every event; a reader sees it before the event or after it.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sml_dist.config.metrics import METRICS
from sml_dist.spec import json_safe
from sml_dist.train.run_folder import RunFolder
from sml_dist.trials import TRIALS, Record, read_trials
from sml_dist.whole_files import WholeFiles


class Books:
    """All trials of a sweep, by id."""

    def __init__(self, folder: Path, metric: str):
        self.folder, self.metric = folder, metric
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
        record.value = record.best(self.metric).get(self.metric)
        self._count(record)
        self.write(record)

    def exploited(self, id: int, exploit: dict[str, Any]) -> None:
        record = self.records[id]
        record.exploits.append(exploit)
        record.params = exploit["params"]
        donor = self.records[exploit["from"]]  # whose checkpoint, best weights included, is the trial's now, and so is what led to it
        record.history = [each for each in donor.history if each["step"] <= exploit["step"]]
        record.value = record.best(self.metric).get(self.metric)
        self.write(record)

    def end(self, id: int, status: str, *, summary: dict[str, Any] | None = None, error: str | None = None) -> None:
        record = self.records[id]
        self._count(record)
        self.since.pop(id, None)
        record.status, record.summary, record.error, record.ended = status, summary, error, round(time.time(), 3)
        self.write(record)

    def write(self, *changed: Record) -> None:
        self.lines |= {record.id: as_line(record) for record in changed}
        WholeFiles(self.folder).write(TRIALS, "".join(self.lines[id] for id in sorted(self.lines)))

    def _count(self, record: Record) -> None:
        if record.id in self.since:
            now = time.monotonic()
            record.seconds = round(record.seconds + now - self.since[record.id], 3)
            self.since[record.id] = now


def kept(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What a history keeps of an evaluation: of the metrics those that are numbers."""
    evaluation = json_safe(evaluation)
    found = {name: evaluation[name] for name in ("rows", "step", "epoch", *METRICS) if evaluation.get(name) is not None}
    return found | {"time": evaluation.get("time", round(time.time(), 3))}


def as_line(record: Record) -> str:
    return json.dumps(json_safe(vars(record))) + "\n"
