"""Which trial goes on: Ray Tune's schedulers by rows trained on, and what a sweep that goes on must tell them."""

import functools
import math
from typing import Any

import numpy as np
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, PopulationBasedTraining, TrialScheduler

from sml_dist.tune.blueprint import Blueprint
from sml_dist.tune.books import Books
from sml_dist.tune.space import Params, Space


class Ended:
    """Stands for a trial of an earlier attempt."""

    def __init__(self, id: int):
        self.trial_id = f"ended-{id}"


class Recalling:
    """Mixed into a scheduler: it hears the histories in the books before a trial starts, so that a sweep which goes on
    decides as one that was never cut off."""

    def __init__(self, books: Books, **settings: Any):
        super().__init__(**settings)
        self.books, self.recalled = books, set()

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        for id, record in self.books.records.items():
            if record.ended_for_good and record.attempts and id not in self.recalled:
                self.recall(controller, Ended(id), id)
        self.recall(controller, trial, trial.config["given"]["id"])

    def recall(self, controller: Any, trial: Any, id: int) -> None:
        self.recalled.add(id)
        super().on_trial_add(controller, trial)
        for evaluation in self.books.records[id].history:
            self.hear(controller, trial, evaluation)


class Asha(Recalling, ASHAScheduler):
    hear = ASHAScheduler.on_trial_result


class Median(Recalling, MedianStoppingRule):
    hear = MedianStoppingRule.on_trial_complete  # takes a result down and decides nothing

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial that failed has no result that could be compared with others'."""
        if self._metric in result:
            super().on_trial_complete(controller, trial, result)


class Population(PopulationBasedTraining):
    """Goes on with the scores and the intervals in the books; of the trials that have ended none is compared or taken from."""

    def __init__(self, books: Books, **settings: Any):
        super().__init__(**settings)
        self.books = books

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        super().on_trial_add(controller, trial)
        state = self._trial_state[trial]
        for evaluation in self.books.records[trial.config["given"]["id"]].history:
            if evaluation["rows"] - state.last_perturbation_time >= self._perturbation_interval and self._metric in evaluation:
                self._save_trial_state(state, evaluation["rows"], evaluation, trial)
                state.last_perturbation_time = evaluation["rows"]

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The donor's settings, changed; Tune clones the whole configuration, and with it whose run it is."""
        config, operations = super()._get_new_config(trial, trial_to_clone)
        return {"given": config["given"] | {"id": trial.config["given"]["id"]}}, operations


def make_scheduler(blueprint: Blueprint, books: Books, rows: int) -> TrialScheduler:
    """`rows`: the most that a trial trains on."""
    settings, epoch = blueprint.sweep.scheduler, blueprint.epoch_rows
    if settings.name == "asha":
        return Asha(
            books,
            time_attr="rows",
            grace_period=settings.grace * epoch,
            max_t=rows,
            reduction_factor=settings.reduction,
            stop_last_trials=False,  # a trial that has come to its end has its summary yet to write
        )
    if settings.name == "median":
        # a slice without end: else trials without peers to compare with take turns, each time from a checkpoint
        return Median(books, time_attr="rows", grace_period=settings.grace * epoch, min_time_slice=math.inf)
    if settings.name == "pbt":
        return Population(
            books,
            time_attr="rows",
            perturbation_interval=settings.interval * epoch,
            hyperparam_mutations={"given": {"params": mutations(blueprint.space, blueprint.sweep.search.seed)}},
            quantile_fraction=settings.quantile,
            custom_explore_fn=functools.partial(clamped, blueprint.space),
            log_config=False,  # the books have it
            require_attrs=False,  # a trial that failed has none
        )
    return FIFOScheduler()


def mutations(space: Space, seed: int) -> dict[str, Any]:
    """What population based training may change: a choice to its neighbour, a number by a fifth, either anew now and then."""
    random = np.random.default_rng(seed)
    anew = {key: functools.partial(space.at_random, key, random) for key in space.dimensions}
    return {key: space.extremes(key) if space.categorical(key) else at_random for key, at_random in anew.items()}


def clamped(space: Space, config: dict[str, Any]) -> dict[str, Any]:
    """A trial's Tune configuration, its numbers moved into their ranges."""
    params: Params = config["given"]["params"]
    return config | {"given": config["given"] | {"params": {key: space.nearest(key, value) for key, value in params.items()}}}
