"""Between Ray Tune and the books: what happens to trials is written down, shown, and told to the search."""

import shutil
import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback, Stopper

from sml_dist.config.tune import SweepConfig
from sml_dist.train.launch import root_cause
from sml_dist.trials import Record
from sml_dist.tune.blueprint import Blueprint
from sml_dist.tune.books import Books
from sml_dist.tune.search import Search

Show = Callable[[str, Record], None]  # an event (started, evaluated, exploited or a status) of a trial


class Clerk(Callback):
    """Keeps the books as Tune calls it, and of the trials that have ended the checkpoints of the best and of the default, of no others."""

    def __init__(self, blueprint: Blueprint, books: Books, search: Search, show: Show):
        self.blueprint, self.books, self.search, self.show = blueprint, books, search, show
        self.outcomes: dict[int, dict[str, Any]] = {}  # of trials that came to an end: {"summary"} or {"failed"}

    def __getstate__(self) -> dict[str, Any]:
        """See Search."""
        return {}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.books.begin(id_of(trial))
        self.recover(self.books.records[id_of(trial)])
        self.show("started", self.books.records[id_of(trial)])

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
        id = id_of(trial)
        if "exploit" in result:
            self.books.exploited(id, result["exploit"])
            self.show("exploited", self.books.records[id])
        if self.books.metric in result:
            self.books.evaluated(id, result)
            self.show("evaluated", self.books.records[id])
        if "summary" in result or "failed" in result:
            self.outcomes[id] = result

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        outcome = self.outcomes.pop(id_of(trial), {})
        if "failed" in outcome:
            self.end(id_of(trial), "failed", error=outcome["failed"])
        elif "summary" in outcome:
            self.end(id_of(trial), "finished", summary=outcome["summary"])
        else:
            self.end(id_of(trial), "stopped")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.end(id_of(trial), "failed", error=root_cause(trial.get_error()))

    def recover(self, record: Record) -> None:
        """An evaluation that was committed, but not told of before a kill, is in the run's folder alone."""
        if record.history or record.attempts > 1:
            self.books.recover(record.id, self.blueprint.evaluations(record.id, record.params))

    def end(self, id: int, status: str, **about: Any) -> None:
        self.books.end(id, status, **about)
        record = self.books.records[id]
        self.search.tell(record)
        self.sweep_up()
        self.show(status, record)

    def close(self) -> None:
        """The sweep is over: what is still running was cut off by a budget."""
        for id in list(self.books.since):
            self.end(id, "cut")

    def sweep_up(self) -> None:
        """Removes the checkpoints of trials that have ended, but for the best and the default, with which the verdict has them compared."""
        sweep = self.blueprint.with_trials(self.books.records.values())
        kept = {record.id for record in [*sweep.ranked[: sweep.config.keep], sweep.default] if record}
        for record in sweep.trials:
            if record.ended_for_good and record.id not in kept:
                shutil.rmtree(self.blueprint.folder / record.run / "checkpoints", ignore_errors=True)


class Budget(Stopper):
    """Ends all trials once the minutes of this command or the rows of the sweep are spent. Tune gives them ten seconds to
    come to an evaluation, then kills them: their checkpoints are whole."""

    def __init__(self, sweep: SweepConfig, books: Books):
        self.books, self.rows = books, sweep.rows
        self.until = time.monotonic() + 60 * sweep.minutes if sweep.minutes else None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        late = self.until is not None and time.monotonic() > self.until
        return late or (self.rows is not None and sum(record.rows for record in self.books.records.values()) >= self.rows)


def id_of(trial: Any) -> int:
    return trial.config["given"]["id"]
