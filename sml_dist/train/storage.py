"""A folder of a mounted file system that checkpoints live in; every operation is tried again while the file system fails."""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from sml_dist.whole_files import to_disk

T = TypeVar("T")

WAITS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between tries of an operation that fails
CHUNK = 8 << 20
SYNC_EVERY = 256 << 20  # bytes: a single sync at the end of a large file would be minutes in which nothing is seen to move


class Storage:
    """Files below the folder `root`; names are relative to it. A folder appears whole by `rename` after everything in it was synced.

    `beat` is called for each chunk that is read, by the thread that waits for it; `moved` counts the bytes that a writer's
    thread has checked and written, for the thread that waits for it.
    """

    def __init__(self, root: str | Path, waits: tuple[float, ...] = WAITS, beat: Callable[[], None] = lambda: None):
        self.root, self.waits, self.beat, self.moved = os.path.abspath(root), waits, beat, 0

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def write(self, name: str, chunks: Callable[[], Iterable[Any]]) -> str:
        """Writes and syncs a file; returns its SHA-256. `chunks` gives its bytes, anew for each try."""
        return self.tried(lambda: self._write(name, chunks()))

    def _write(self, name: str, chunks: Iterable[Any]) -> str:
        total, unsynced = hashlib.sha256(), 0
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as file:
            for chunk in chunks:
                total.update(chunk)
                self.put(file, chunk)
                self.advance(len(chunk))
                unsynced += len(chunk)
                if unsynced >= SYNC_EVERY:
                    file.flush()
                    self.sync(file.fileno())
                    unsynced = 0
            file.flush()
            self.sync(file.fileno())
        return total.hexdigest()

    def advance(self, size: int) -> None:
        self.moved += size

    def put(self, file: Any, chunk: Any) -> None:
        file.write(chunk)

    def sync(self, handle: int) -> None:
        os.fsync(handle)

    def sync_folder(self, name: str = "") -> None:
        to_disk(self.path(name), self.sync)

    def rename(self, old: str, new: str) -> None:
        self.tried(lambda: os.rename(self.path(old), self.path(new)))

    def names(self) -> list[str]:
        """What lies directly in the folder; nothing if it is not there, which a failing file system must not pass for."""

        def listed() -> list[str]:
            try:
                return os.listdir(self.root)
            except FileNotFoundError:
                return []

        return sorted(self.tried(listed))

    def read(self, name: str) -> bytes:
        return self.tried(Path(self.path(name)).read_bytes, missing=True)

    def sha256(self, name: str) -> str:
        def hashed() -> str:
            total = hashlib.sha256()
            with open(self.path(name), "rb") as file:
                while chunk := file.read(CHUNK):
                    total.update(chunk)
                    self.beat()
            return total.hexdigest()

        return self.tried(hashed, missing=True)

    def remove(self, name: str) -> None:
        """A folder with all in it; nothing if it is not there. Best effort: what is left is swept up later."""
        shutil.rmtree(self.path(name), ignore_errors=True)

    def tried(self, operation: Callable[[], T], *, missing: bool = False) -> T:
        return tried(operation, self.waits, missing=missing)


def tried(operation: Callable[[], T], waits: tuple[float, ...], *, missing: bool = False) -> T:
    """The operation's value; an OSError is tried again after each wait, and raised after the last.

    With `missing`, a file that is not there is an answer and raises at once.
    """
    for wait in waits:
        try:
            return operation()
        except OSError as error:
            if missing and isinstance(error, FileNotFoundError):
                raise
            time.sleep(wait)
    return operation()


def append(path: Path, text: str, *, sync: bool = False) -> None:
    """Adds whole lines to a local file, or on an OSError none of them."""
    with open(path, "ab", buffering=0) as file:
        end = file.tell()
        try:
            rest = memoryview(text.encode())
            while rest:
                rest = rest[file.write(rest) :]
            if sync:
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise
