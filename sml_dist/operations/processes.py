"""Processes by a mark in the environment they were started with: theirs and all their descendants', whatever they call themselves."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

POLL_SECONDS = 0.1


def marked(name: str, value: str) -> list[int]:
    """The ids of the processes started with name=value; those that end meanwhile, or are another user's, are left out."""
    mark = f"{name}={value}".encode()
    return [pid for pid, environment in _environments() if mark in environment and pid != os.getpid()]


def beside(name: str, value: str, other: str) -> set[str]:
    """The values of `other` that processes started with name=value have."""
    mark, prefix = f"{name}={value}".encode(), f"{other}=".encode()
    found = (each for _, environment in _environments() if mark in environment for each in environment)
    return {each.removeprefix(prefix).decode() for each in found if each.startswith(prefix)}


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "environ").read_bytes().split(b"\0")


def kill_marked(name: str, value: str) -> None:
    """Kills them all, those that they start meanwhile too; returns when they are gone."""
    while pids := marked(name, value):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
