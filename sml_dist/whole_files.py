"""Files that are there whole or not at all."""

import contextlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sml_dist.spec import InputError, json_safe


def to_disk(path: str | Path, sync: Callable[[int], None] = os.fsync) -> None:
    """Makes a file's bytes, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        sync(handle)
    finally:
        os.close(handle)


class WholeFiles:
    """Small files of a folder. Whoever reads one while it is written anew gets all of the old or all of the new."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def write(self, name: str, text: str) -> None:
        """A whole file or none."""
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / f".{name}.partial-{uuid.uuid4().hex[:8]}"  # each writer has its own
        try:
            partial.write_text(text)
            os.replace(partial, self.path / name)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()  # of a write that failed

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, json.dumps(json_safe(value), indent=1) + "\n")

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def read_json(self, name: str) -> Any:
        """The file's value, or None where there is none. Raises InputError where it is damaged: it is only ever written whole."""
        try:
            text = self.read(name)
            return None if text is None else json.loads(text)
        except ValueError as error:
            raise InputError(f"{self.path / name} is damaged ({error}); take it away") from None

    def read(self, name: str) -> str | None:
        """The file's text, or None where there is none."""
        path = self.path / name
        return path.read_text() if path.is_file() else None
