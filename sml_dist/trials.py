"""A sweep as its folder holds it, for what runs it (tune/) and what reports on it (review/): its trials, and which of them are best."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sml_dist.config.metrics import METRICS
from sml_dist.config.tune import SweepConfig
from sml_dist.spec import InputError

SWEEP, BASE, TRIALS = "sweep.yaml", "base.yaml", "trials.jsonl"  # files of a sweep's folder; tune/books.py lists them all
COLUMNS = ("trial", "status", "epochs", "rows", "seconds", *METRICS)  # of tables of trials, beside those of the searched keys


@dataclass
class Record:
    """A trial.

    id: from 0 on, in the order in which trials were drawn; its run is `run`, relative to the sweep's folder.
    status: running (or cut off by a kill: it goes on when the sweep does), finished (to its end), stopped (by the
        scheduler), cut (by a budget, or it failed and is to be tried again), failed (see `error`).
    params: the searched keys, dotted, that are in force: base + params is the trial's configuration. Keys of other branches
        are left out. Under population based training, of the last exploit.
    point: its number among `points`, for those that were not drawn. pair: the number of its draw, with `pair`.
    history: of each evaluation on the validation rows {"rows" trained on, "step", "epoch" (whole ones), "time" (Unix), and
        of METRICS those that are numbers}, in the order of rows; up to an exploit the donor's.
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

    def best(self, metric: str) -> dict[str, Any]:
        """The evaluation at which the metric was best; {} where it never was a number."""
        known = (each for each in self.history if metric in each)
        return max(known, key=lambda each: METRICS[metric].sign * each[metric], default={})


@dataclass(frozen=True)
class Sweep:
    """A sweep, finished or not. `base`: the configuration that its trials vary, as plain data."""

    path: Path
    config: SweepConfig
    base: dict[str, Any]
    trials: list[Record]

    @cached_property
    def ranked(self) -> list[Record]:
        return ranked(self.trials, self.config.metric)

    @cached_property
    def default(self) -> Record | None:
        """The trial whose settings were all the base's own from beginning to end, if there was one."""
        return next((trial for trial in self.ranked if self.is_base(trial) and not trial.exploits), None)

    def is_base(self, trial: Record) -> bool:
        return all(self.base_value(key) == value for key, value in trial.params.items())

    @property
    def gain(self) -> float | None:
        """By how much the best trial is better than the default; never negative."""
        return self.config.sign * (self.ranked[0].value - self.default.value) if self.default else None

    @property
    def exploited(self) -> bool:
        """Whether a trial went on from another's checkpoint: it did not come to its value under the settings in its params."""
        return any(trial.exploits for trial in self.trials)

    @property
    def counts(self) -> dict[str, int]:
        """How many trials there are of each status."""
        return dict(Counter(trial.status for trial in self.trials))

    def base_value(self, key: str) -> Any:
        return value_at(self.base, key)


def ranked(trials: Iterable[Record], metric: str) -> list[Record]:
    """Those with a value that did not fail, best first."""
    found = [each for each in trials if each.value is not None and each.status != "failed"]
    return sorted(found, key=lambda each: -METRICS[metric].sign * each.value)


def value_at(raw: Any, key: str) -> Any:
    """A dotted key's value in plain data; None where it has none."""
    for part in key.split("."):
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Each searched key's shortest dotted suffix that no other column shares."""
    names = [*COLUMNS, *keys]

    def short(key: str) -> str:
        parts, others = key.split("."), [f".{name}" for name in names if name != key]
        ends = (".".join(parts[n:]) for n in reversed(range(len(parts))))
        return next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)

    return {key: short(key) for key in keys}


def read_trials(folder: Path) -> Iterator[Record]:
    """The trials of a sweep's folder, by id; none where it has not begun. Raises InputError that names a line that is none."""
    path, way_out = folder / TRIALS, "take away the line and its run's folder"
    for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else [], start=1):
        try:
            if not isinstance(found := json.loads(line), dict):
                raise ValueError("no object")
            trial = Record(**found)
            if not isinstance(trial.value, float | int | None):
                raise TypeError(f"value {trial.value!r} is no number")
        except ValueError:  # the file is only ever written whole
            raise InputError(f"{path}, line {number} is damaged; {way_out}") from None
        except TypeError as error:
            what = f"{path}, line {number} is no trial of this version ({str(error).removeprefix('Record.__init__() ')})"
            raise InputError(f"{what}; go on with the version that wrote it, or {way_out}") from None
        yield trial
