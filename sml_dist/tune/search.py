"""Which trial comes next: a Searcher of Ray Tune over an Optuna study, told of every trial in the books.

Tune's own OptunaSearch knows neither pairs nor a sweep that goes on: its state is a pickle, written now and then.
"""

import itertools
import json
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sml_dist.config.tune import SearchConfig
from sml_dist.trials import Record
from sml_dist.tune.blueprint import Blueprint
from sml_dist.tune.books import Books
from sml_dist.tune.space import Params, new_study

Draw = tuple[optuna.Trial, list[Params]]
REPEATS = 20  # of the sampler, before it is passed over
BLIND = 2_000  # draws at random before a space is held for used up


class Search(Searcher):
    """First the trials that were cut off, then the points, then what the study or the grid says.

    A draw is one trial, or one for each value of `pair`, of which the study is told the mean. No draw is run twice: a trial
    is determined by its settings. A population may have it twice, to go different ways. As many trials as there are `slots`
    begin at once; of those that wait for room one alone is drawn, so that it knows nearly all that came out before it.
    """

    def __init__(self, blueprint: Blueprint, books: Books):
        super().__init__(metric=blueprint.sweep.metric, mode="max" if blueprint.sweep.sign > 0 else "min")
        self.blueprint, self.books, self.space = blueprint, books, blueprint.space
        self.unfinished = iter([record for _, record in sorted(books.records.items()) if not record.ended_for_good])
        # another seed after each restart: else the same points would be drawn again
        seed = blueprint.sweep.search.seed * 100_003 + len(books.records)
        self.study = new_study(sampler(blueprint.sweep.search, seed), self.mode)
        self.blind = new_study(optuna.samplers.RandomSampler(seed=seed))
        self.asked: dict[int, optuna.Trial] = {}  # by draw
        self.slots, self.handed_out = 1, set()
        for draw in sorted({draw_of(record) for record in books.records.values()}):
            self.recall(draw)
        self.fresh = self.new_records()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher, scheduler and callbacks, to go on from; this sweep goes on from its books."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        under_way = [id for id in self.handed_out if self.books.records[id].status == "running"]
        if len(under_way) >= self.slots and len(under_way) > len(self.books.since):
            return None  # one waits
        record = next(self.unfinished, None) or next(self.fresh, None)
        if record is None:
            return Searcher.FINISHED
        self.handed_out.add(record.id)
        return {"given": given(record)}

    def all_given(self) -> list[dict[str, Any]]:
        """Every trial that is left, at once."""
        return [given(record) for record in [*self.unfinished, *self.fresh]]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing yet: a draw is told when the books have closed all its trials; see `tell`."""

    def tell(self, record: Record) -> None:
        """A trial has ended; when all of its draw have, the study hears of them."""
        draw = draw_of(record)
        trial, members = self.asked.get(draw), self.members(draw)
        if trial is None or not all(member.ended_for_good for member in members):
            return
        del self.asked[draw]
        values = [member.value for member in members if member.value is not None]
        if not values or any(member.status == "failed" for member in members):
            self.study.tell(trial, state=TrialState.FAIL)
            return
        for evaluation in members[0].history if len(members) == 1 else []:
            trial.report(evaluation[self.metric], evaluation["rows"])
        pruned = any(member.status == "stopped" for member in members)
        self.study.tell(trial, None if pruned else sum(values) / len(values), TrialState.PRUNED if pruned else TrialState.COMPLETE)

    def recall(self, draw: int) -> None:
        """Tells the study of a draw in the books."""
        self.asked[draw] = self.enqueued([member.params for member in self.members(draw)])[0]
        for member in self.members(draw):
            self.tell(member)

    def ask(self) -> Draw:
        """The study's next trial, and the parameters of the draw's trials."""
        trial = self.study.ask()
        return trial, self.suggested(trial)

    def enqueued(self, found: list[Params]) -> Draw:
        """These parameters as the study's next trial."""
        self.study.enqueue_trial(self.space.encoded({key: value for params in found for key, value in params.items()}))
        return self.ask()

    def suggested(self, trial: optuna.Trial) -> list[Params]:
        return [self.space.suggested(trial, given) for given in self.blueprint.variants()]

    def unseen(self) -> Draw | None:
        """What no draw has had yet: the sampler's choice, a blind one where that repeats itself, None where nothing is left."""
        if self.blueprint.sweep.scheduler.name == "pbt":
            return self.ask()
        seen = {as_text(record.params) for record in self.books.records.values()}

        def fresh(found: list[Params]) -> bool:
            return any(as_text(params) not in seen for params in found)

        for _ in range(REPEATS):
            trial, found = self.ask()
            if fresh(found):
                return trial, found
            self.study.tell(trial, state=TrialState.FAIL)
        blind = next(filter(fresh, (self.suggested(self.blind.ask()) for _ in range(BLIND))), None)
        return None if blind is None else self.enqueued(blind)

    def new_records(self) -> Iterator[Record]:
        """The trials that are not in the books yet, as they are asked for."""
        for draw, source in zip(itertools.count(), self.sources(), strict=False):
            if draw < self.draws_done():
                continue
            point, given = source if source is not None else (None, None)
            drawn = self.unseen() if given is None else self.enqueued(given)
            if drawn is None:
                return
            self.asked[draw], found = drawn
            yield from self.booked(draw, point, found)

    def sources(self) -> Iterator[tuple[int | None, list[Params]] | None]:
        """For each draw its point's number and parameters, or None: the study's choice."""
        points = [self.blueprint.draw(n) for n in range(len(self.blueprint.sweep.points))]
        yield from enumerate(points)
        if self.blueprint.sweep.search.name == "grid":
            known = {as_text(params) for found in points for params in found}
            every = (params for params in self.space.grid() if as_text(params) not in known)
            yield from ((None, [params]) for params in every)
        else:
            yield from itertools.repeat(None, max(0, self.blueprint.sweep.trials - len(points)))

    def booked(self, draw: int, point: int | None, found: list[Params]) -> list[Record]:
        """A draw's trials, all of them or none in the books."""
        ids = range(draw * len(found), (draw + 1) * len(found))
        pair = draw if self.blueprint.sweep.pair else None
        records = [Record(id, each, self.blueprint.run_of(id), point=point, pair=pair) for id, each in zip(ids, found, strict=True)]
        self.books.add(records)
        return records

    def members(self, draw: int) -> list[Record]:
        """The trials of a draw that are in the books."""
        return [record for record in self.books.records.values() if draw_of(record) == draw]

    def draws_done(self) -> int:
        """Also those whose lines were damaged and taken away."""
        return 1 + max((draw_of(record) for record in self.books.records.values()), default=-1)


def given(record: Record) -> dict[str, Any]:
    """What a trial's actor has to know."""
    return {"id": record.id, "params": record.params}


def as_text(params: Params) -> str:
    return json.dumps(params, sort_keys=True)


def draw_of(record: Record) -> int:
    return record.id if record.pair is None else record.pair


def sampler(search: SearchConfig, seed: int) -> optuna.samplers.BaseSampler:
    if search.name != "optuna":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.startup, multivariate=True, group=True)
