"""A study's runs as Ray tasks: as many at once as there is room for, each handed over when it ends."""

from collections.abc import Callable, Iterator
from typing import Any

import ray

from sml_dist.session import check_cpus


def as_they_end(function: Callable[..., Any], arguments: dict[int, tuple], cpus: float) -> Iterator[tuple[int, Any]]:
    """(key, function(*arguments[key])) of every entry, in the order of their ends. A task whose process died is run again."""
    if arguments:
        check_cpus(cpus)
    task = ray.remote(num_cpus=cpus, max_retries=3)(function)
    pending = {task.remote(*given): key for key, given in arguments.items()}
    while pending:
        (ready, *_), _ = ray.wait(list(pending), num_returns=1)
        yield pending.pop(ready), ray.get(ready)
