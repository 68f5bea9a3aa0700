"""A folder that checkpoints live in: local, shared or an object store; every operation is tried again while the store fails."""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

T = TypeVar("T")

WAITS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between tries of an operation that fails
CHUNK = 8 << 20


class Storage:
    """Files below `root`, a path or any fsspec URL; names are relative to it.

    On a file system a folder appears whole by `rename` after everything in it was synced. An object store knows no
    rename: there the folder is written in place, and `last` is the file that makes it count.
    """

    def __init__(self, root: str | Path, waits: tuple[float, ...] = WAITS):
        self.fs, self.root = fsspec.url_to_fs(str(root))
        self.local, self.waits = isinstance(self.fs, LocalFileSystem), waits

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def write(self, name: str, chunks: Callable[[], Iterable[Any]]) -> str:
        """Writes and syncs a file; returns its SHA-256. `chunks` gives its bytes, anew for each try."""
        return self.tried(lambda: self._write(name, chunks()))

    def _write(self, name: str, chunks: Iterable[Any]) -> str:
        total = hashlib.sha256()
        self.fs.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)
        with self.fs.open(self.path(name), "wb") as file:
            for chunk in chunks:
                total.update(chunk)
                self.put(file, chunk)
            if self.local:
                file.flush()
                self.sync(file.fileno())
        return total.hexdigest()

    def put(self, file: Any, chunk: Any) -> None:
        file.write(chunk)

    def sync(self, handle: int) -> None:
        os.fsync(handle)

    def sync_folder(self, name: str = "") -> None:
        """Makes the names in a folder durable."""
        if self.local:
            handle = os.open(self.path(name), os.O_RDONLY)
            try:
                self.sync(handle)
            finally:
                os.close(handle)

    def rename(self, old: str, new: str) -> None:
        self.tried(lambda: os.rename(self.path(old), self.path(new)))

    def names(self) -> list[str]:
        """What lies directly in the folder."""
        self.fs.invalidate_cache()
        found = self.tried(lambda: self.fs.ls(self.root, detail=False) if self.fs.isdir(self.root) else [])
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def read(self, name: str) -> bytes:
        return self.tried(lambda: self.fs.cat_file(self.path(name)), missing=True)

    def sha256(self, name: str) -> str:
        def hashed() -> str:
            total = hashlib.sha256()
            with self.fs.open(self.path(name), "rb") as file:
                while chunk := file.read(CHUNK):
                    total.update(chunk)
            return total.hexdigest()

        return self.tried(hashed, missing=True)

    def remove(self, name: str) -> None:
        """A file or a folder with all in it; nothing if it is not there. Best effort: what is left is swept up later."""
        with contextlib.suppress(OSError):
            self.fs.rm(self.path(name), recursive=True)

    @contextlib.contextmanager
    def local_copy(self, name: str) -> Iterator[str]:
        """The path of a file on this machine: itself, or a copy for as long as the context."""
        if self.local:
            yield self.path(name)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/copy"
            self.tried(lambda: self.fs.get_file(self.path(name), path))
            yield path

    def tried(self, operation: Callable[[], T], *, missing: bool = False) -> T:
        """The operation's value; an OSError is tried again after each wait, and raised after the last.

        With `missing`, a file that is not there is an answer and raises at once.
        """
        for wait in self.waits:
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
