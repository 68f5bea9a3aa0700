"""Independent tasks over the cluster by Ray Data: results come as tasks end, and nothing else is kept on the driver."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from ray import cloudpickle

from sml_dist.spec import InputError, RunError

RETRIES = 5  # of a task whose worker dies; left to itself Ray Data tries for ever
DEATHS = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ActorDiedError,
    ray.exceptions.ActorUnavailableError,
)


@dataclass(frozen=True)
class Actors:
    """Processes that live as long as there are tasks, for functions that load something large once; `gpus` of each may be a fraction."""

    count: int
    cpus: float = 1.0
    gpus: float = 0.0


class Call:
    """A function over tasks as one over Ray Data's batches of one. An InputError travels as a value: Ray would wrap it, and log a crash."""

    def __init__(self, function: Callable[[Any], Any]):
        self.function = function

    def __call__(self, batch: pa.Table) -> pa.Table:
        index, task = cloudpickle.loads(batch["task"][0].as_py())
        try:
            outcome = self.function(task)
        except InputError as error:
            outcome = error
        return pa.table({"outcome": pa.array([cloudpickle.dumps((index, outcome))], pa.large_binary())})


def map_tasks(function: Callable[[Any], Any], tasks: Sequence[Any], actors: Actors | None = None) -> Iterator[tuple[int, Any]]:
    """(index, function(task)) of every task, as they finish. The first InputError of a task stops all.

    Ray runs a task again if its worker dies, so `function` must do the same when it is done twice. If its workers die again and
    again, as they do of a crash in a library or for want of memory, that is a RunError. Tasks run in processes that come and go,
    as many as the cluster has CPUs, or in `actors`.
    """
    if not tasks:
        return
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it would warn that its progress bars are off
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False

    with ray.data.DataContext.current(context), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray 2.60 deprecates `max_retries` here and has no other place for it yet
        items = ray.data.from_items([{"task": cloudpickle.dumps(item)} for item in enumerate(tasks)], override_num_blocks=len(tasks))
        outcomes = items.map_batches(batch_size=1, batch_format="pyarrow", **_how(function, actors))
    for row in _alive(outcomes.iter_rows()):
        index, outcome = cloudpickle.loads(row["outcome"])
        if isinstance(outcome, InputError):
            raise outcome
        yield index, outcome


def _how(function: Callable[[Any], Any], actors: Actors | None) -> dict[str, Any]:
    """The arguments of map_batches for tasks, or for actors."""
    if actors is None:
        return {"fn": Call(function).__call__, "max_retries": RETRIES}
    # by default four tasks wait at an actor, the last of them while another actor has none left
    pool = ray.data.ActorPoolStrategy(size=actors.count, max_tasks_in_flight_per_actor=2)
    resources = {"num_cpus": actors.cpus, "num_gpus": actors.gpus, "max_restarts": -1, "max_task_retries": RETRIES}
    return {"fn": Call, "fn_constructor_args": (function,), "compute": pool, **resources}


def _alive(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except DEATHS as error:
        reason = " ".join(str(error).split(".")[0].split())
        raise RunError(f"a worker died at the same task {RETRIES + 1} times ({reason}); it may lack memory (see --verbose)") from None
