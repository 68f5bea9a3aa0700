"""A study's runs as Ray tasks: as many at once as there is room for, each handed over when it ends."""

from collections.abc import Callable, Iterator
from typing import Any

import ray

from sml_dist.session import check_cpus
from sml_dist.spec import InputError, RunError


def as_they_end(
    function: Callable[..., Any], arguments: dict[int, tuple], cpus: float, name: Callable[[int], str]
) -> Iterator[tuple[int, Any]]:
    """(key, function(*arguments[key])) of every entry, as they finish. A task whose process died is run again.

    Raises RunError, which begins with the `name` of the key, at the first error that the user can mend.
    """
    if arguments:
        check_cpus(cpus)
    task = ray.remote(num_cpus=cpus, max_retries=3)(tried)
    pending = {task.remote(function, *given): key for key, given in arguments.items()}
    while pending:
        (ready, *_), _ = ray.wait(list(pending), num_returns=1)
        key, found = pending.pop(ready), ray.get(ready)
        if isinstance(found, InputError | RunError):
            raise RunError(f"{name(key)}: {found}")
        yield key, found


def tried(function: Callable[..., Any], *given: Any) -> Any:
    """What the function returns; an error that the user can mend travels as a value, which Ray does not wrap in a traceback."""
    try:
        return function(*given)
    except (InputError, RunError) as error:
        return error
