"""A storage that fails or dies at its n-th operation, and loses what a power cut would lose."""

import contextlib
import errno
import os
import random
from pathlib import Path
from typing import Any

from sml_dist.train.storage import Storage


class PowerCut(BaseException):
    """The machine is gone at this operation: nothing after it happens."""


class Faulty(Storage):
    """Operations are every write, fsync and rename. At number `at` an `error` is raised, or the power is `cut`.

    At a cut, files that were not synced keep a random part of what was written, and names that were not synced may be lost.
    """

    def __init__(self, root: Path, at: int | None = None, kind: str = "error", seed: int = 0):
        super().__init__(root, waits=())
        self.at, self.kind, self.random, self.operations = at, kind, random.Random(seed), 0
        self.unsynced: set[str] = set()
        self.renamed: list[tuple[str, str]] = []

    def fails(self) -> bool:
        self.operations += 1
        return self.operations - 1 == self.at

    def fail(self) -> None:
        if self.kind == "error":
            raise OSError(errno.EIO, "injected")
        for path in self.unsynced:
            with contextlib.suppress(FileNotFoundError):
                os.truncate(path, self.random.randint(0, os.path.getsize(path)))
        for old, new in reversed(self.renamed):
            if self.random.random() < 0.5:
                os.rename(new, old)
        raise PowerCut

    def put(self, file: Any, chunk: Any) -> None:
        path = os.readlink(f"/proc/self/fd/{file.fileno()}")
        self.unsynced.add(path)
        if self.fails():
            file.write(bytes(chunk)[: self.random.randint(0, len(chunk))])
            file.flush()
            self.fail()
        super().put(file, chunk)
        file.flush()

    def sync(self, handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if self.fails():
            self.fail()
        super().sync(handle)
        self.unsynced.discard(path)
        if os.path.isdir(path):
            self.renamed = [(old, new) for old, new in self.renamed if os.path.dirname(new) != path]

    def rename(self, old: str, new: str) -> None:
        if self.fails():
            self.fail()
        super().rename(old, new)
        self.renamed.append((self.path(old), self.path(new)))
        self.unsynced = {path.replace(self.path(old), self.path(new)) for path in self.unsynced}
