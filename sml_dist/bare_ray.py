"""A Ray with fewer processes, for one that ends with its command.

Left out: the API server, which `ray.init` waits for; the autoscaler's monitor; the monitor of logs, unless they are shown; and all that
the node's agent imports for a dashboard. On two cores they take 1.5 of the 12 seconds of a start, and 1.5 % of both for as long
as it runs.

Reaches into Ray, of the version that is pinned: one that has no such name fails here, one that does not call it starts later.
"""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def bare(logs: bool) -> Iterator[None]:
    """For the Ray that is started within. `logs`: whether this process is to show what the workers print."""
    from ray._private import utils
    from ray._private.node import Node

    unneeded = ["start_api_server", "start_monitor"] + ([] if logs else ["start_log_monitor"])
    with contextlib.ExitStack() as stack:
        for name in unneeded:
            stack.enter_context(replaced(Node, name, lambda self, **given: None))
        stack.enter_context(replaced(utils, "get_dashboard_dependency_error", lambda: ImportError("left out")))
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
