"""Independent tasks over the cluster by Ray Data: results come as tasks end, and nothing else is kept on the driver."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from ray import cloudpickle

from sml_dist.spec import InputError, RunError

RETRIES = 5  # of a task whose worker dies; left to itself Ray Data tries for ever
DEATHS = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError)


def map_tasks(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """(index, function(task)) of every task, in the order of their ends. The first InputError of a task stops all.

    Ray runs a task again if its worker dies, so `function` must do the same when it is done twice. If its workers die again and
    again, as they do of a crash in a library or for want of memory, that is a RunError.
    """
    if not tasks:
        return
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it would warn that its progress bars are off
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False

    def call(batch: pa.Table) -> pa.Table:
        index, task = cloudpickle.loads(batch["task"][0].as_py())
        try:
            outcome = function(task)
        except InputError as error:  # travels as a value: Ray would wrap it, and log it as a crash
            outcome = error
        return pa.table({"outcome": pa.array([cloudpickle.dumps((index, outcome))], pa.large_binary())})

    with ray.data.DataContext.current(context), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray 2.60 deprecates `max_retries` here and has no other place for it yet
        items = ray.data.from_items([{"task": cloudpickle.dumps(item)} for item in enumerate(tasks)], override_num_blocks=len(tasks))
        outcomes = items.map_batches(call, batch_size=1, batch_format="pyarrow", max_retries=RETRIES)
    for row in _alive(outcomes.iter_rows()):
        index, outcome = cloudpickle.loads(row["outcome"])
        if isinstance(outcome, InputError):
            raise outcome
        yield index, outcome


def _alive(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except DEATHS as error:
        reason = " ".join(str(error).split(".")[0].split())
        raise RunError(f"a worker died at the same task {RETRIES + 1} times ({reason}); it may lack memory") from None
