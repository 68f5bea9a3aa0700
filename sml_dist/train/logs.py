"""Structured logs: one JSON object a line, with the run, the worker's rank and its node, free of secrets.

They go to the run's logs/rank-*.jsonl, and to standard error, where Ray's logs and a cluster's collector take them up.
"""

import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sml_dist.credentials import scrub
from sml_dist.train.place import Place

logger = logging.getLogger("sml_dist")
logger.addHandler(logging.NullHandler())  # silent where no worker set it up


class JsonLine(logging.Formatter):
    """time, level, the worker's own fields, message, those given as extra={"fields": ...}, and a traceback where there is one."""

    def __init__(self, fields: dict[str, Any]):
        super().__init__()
        self.fields = fields

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": when, "level": record.levelname.lower(), **self.fields, "message": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({key: scrub(value) if isinstance(value, str) else value for key, value in line.items()}, default=str)


@contextlib.contextmanager
def worker_logs(folder: Path, run: str, place: Place) -> Iterator[None]:
    """Logs of this worker while it works at a run; an exception that ends it is logged with its traceback."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    with contextlib.suppress(OSError):  # such as a disk that cannot be written, which the run then reports itself
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(folder / "logs" / f"rank-{place.rank}.jsonl"))
    for handler in handlers:
        handler.setFormatter(JsonLine({"run": run, "rank": place.rank, "node": socket.gethostname(), "pid": os.getpid()}))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        logger.info("started", extra={"fields": {"workers": place.workers, "device": str(place.device)}})
        yield
        logger.info("ended")
    except Exception as error:
        logger.exception("failed: %s", error)
        raise
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def log_event(**values: Any) -> None:
    """An event or evaluation of the run; lines of steps and of their health are metrics.jsonl's alone."""
    if "split" in values or values.get("event", "health") != "health":
        name = values.get("event") or f"evaluated {values['split']}"
        level = logging.WARNING if name in ("skipped", "rolled back") else logging.INFO
        logger.log(level, name, extra={"fields": {key: value for key, value in values.items() if isinstance(value, int | float | str)}})
