"""Processes by a mark in the environment they were started with: theirs and all their descendants', whatever they call themselves."""

import contextlib
import os
import signal
import time
from pathlib import Path

POLL_SECONDS = 0.1


def marked(name: str, value: str) -> list[int]:
    """The ids of the processes started with name=value; those that end meanwhile, or are another user's, are left out."""
    mark, found = f"\0{name}={value}\0".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in b"\0" + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def kill_marked(name: str, value: str) -> None:
    """Kills them all, those that they start meanwhile too; returns when they are gone."""
    while pids := marked(name, value):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
