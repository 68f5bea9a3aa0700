"""A lock that lets one command at a time write a folder."""

import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sml_dist.spec import InputError

FILE = "lock"
PATIENCE_SECONDS = 5.0
POLL_SECONDS = 0.1


@contextlib.contextmanager
def held(folder: str | Path, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Takes an exclusive flock on folder/lock, polling for up to `patience` seconds; makes the folder if there is none.

    The kernel releases it when the process ends, however it ends. Where the file system has no flock, nobody is kept out.
    Raises InputError that names the holder if it is still held by then, OSError if the folder cannot be written.
    """
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    while (file := _locked(path)) is None:
        if time.monotonic() >= deadline:
            way_out = f"wait for it, stop it, or choose another name; if it is gone with its machine, remove {path}"
            raise InputError(f"{folder} is being written by another command ({_holder(path)}); {way_out}")
        time.sleep(POLL_SECONDS)
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%F %T %Z')}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def refuse_held(folder: str | Path) -> None:
    """Raises InputError where another command has the folder. For commands that first start Ray, which takes seconds, and then hold it."""
    with contextlib.suppress(OSError):
        if (Path(folder) / FILE).exists():
            with held(folder, PATIENCE_SECONDS):
                pass


def left(folder: str | Path) -> bool:
    """True if no command holds the folder; False if one on another machine might, whose lock might not be visible from here."""
    try:
        with open(Path(folder) / FILE) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment: whoever wants the folder has the patience
            return f" on {platform.node()} since " in file.read()
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _locked(path: Path) -> IO[str] | None:
    """The open file, locked if flock is supported; None while another process holds the lock."""
    file = open(path, "a")  # noqa: SIM115
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:  # another has it, or has left and removed it since it was opened
            file.close()
            return None
    return file


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        if text := " ".join(path.read_text()[:200].split()):
            return text
    return "which says nothing of itself"
