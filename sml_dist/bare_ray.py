"""Starts a local Ray that ends with its command, without the processes that such a one does not need.

Left out: the API server, which `ray.init` waits for; the autoscaler's monitor; the log monitor, unless logs are shown; and what
the node's agent imports for a dashboard. On two cores they take 1.5 of the 12 seconds of a start, and 1.5 % of both cores as
long as Ray runs.

This replaces private functions of the pinned Ray. A version without them fails here; in one that no longer calls them, the start is slower.
"""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def bare(logs: bool) -> Iterator[None]:
    """Applies to a Ray that is started within. `logs`: whether this process shows what the workers print."""
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
