"""Reads what W&B wrote: a .wandb file, records in LevelDB's log format, each a protobuf of W&B's own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32_768, 7  # bytes; each block and the file itself begin with a header of checksum, length and kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Record]:
    data, at, parts = path.read_bytes(), HEADER, []
    while at + HEADER <= len(data):
        room = BLOCK - at % BLOCK
        if room < HEADER:
            at += room  # the rest of a block that holds no header is padding
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts.append(data[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (FULL, LAST):
            yield Record.FromString(b"".join(parts))
            parts = []


def history(path: Path) -> list[dict[str, Any]]:
    """The logged rows, `_step` among their keys."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def run_of(path: Path) -> Any:
    return next(record.run for record in records(path) if record.WhichOneof("record_type") == "run")


def summary(path: Path) -> dict[str, Any]:
    """The values of the run's line in W&B's table."""
    updates = (record.summary.update for record in records(path) if record.HasField("summary"))
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for update in updates for item in update}


def config(path: Path) -> dict[str, Any]:
    """The run's configuration, as it was at the end."""
    found: dict[str, Any] = {}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind in ("run", "config"):
            update = record.run.config.update if kind == "run" else record.config.update
            found |= {item.key: json.loads(item.value_json) for item in update}
    return found
