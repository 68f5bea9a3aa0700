"""A small process beside each worker that stops it when it makes no progress, and writes down where it stood.

The worker sends a line down a pipe at each step, and worker 0 notes now and then in the run's heartbeat.json that it is
alive, for `sml-dist status`. A worker that waits for a checkpoint sends lines while the bytes of its own part move, and
while it waits for the parts of others: each of those has a watchdog of its own. After `timeout` seconds without a line the
watchdog writes the worker's state and stack to a file and kills it, so that Ray Train restarts the group. It works where a
thread of the worker could not: a process that is stopped, stuck in a system call, or holds the interpreter's lock. It ends
with its worker.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 600.0  # without a line before the first step: planning, loading, the first window
BEAT_SECONDS = 0.2
NOTE_SECONDS = 5.0
NOTE, STARTING, DONE = "heartbeat.json", "starting", "done"
STACK_SECONDS = 15.0
PR_SET_PTRACER = 0x59616D61  # of Linux's prctl


class Watchdog:
    """The worker's end. Call `beat` at each step, and with nothing to say while the worker gets on with what it does."""

    def __init__(self, folder: Path, rank: int, timeout: float):
        own = ["-m", "sml_dist.train.watchdog", str(os.getpid()), str(rank), str(timeout), str(folder)]
        self.process = subprocess.Popen([sys.executable, *own], stdin=subprocess.PIPE, start_new_session=True)
        if sys.platform == "linux":  # Yama, as Ubuntu sets it, lets none but its ancestors look into a process; without Yama, no effect
            ctypes.CDLL(None).prctl(PR_SET_PTRACER, self.process.pid, 0, 0, 0)
        self.pipe, self.last = self.process.stdin.fileno(), 0.0
        os.set_blocking(self.pipe, False)
        self.note, self.noted, self.doing = folder.parent / NOTE if rank == 0 else None, 0.0, STARTING
        self._note(STARTING, 0.0)

    def beat(self, doing: str | None = None) -> None:
        now, self.doing = time.monotonic(), doing or self.doing
        if now - self.last > BEAT_SECONDS or doing == DONE:
            self.last = now
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self.pipe, f"{self.doing}\n".encode())
            self._note(self.doing, 0.0 if doing == DONE else NOTE_SECONDS)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def _note(self, doing: str, every: float) -> None:
        """A whole file or none; a disk that is full is the checkpoints' place to fail, and one that hangs is noticed as any other hang."""
        if self.note and time.monotonic() - self.noted >= every:
            self.noted = time.monotonic()
            with contextlib.suppress(OSError):
                self.note.parent.mkdir(parents=True, exist_ok=True)
                partial = self.note.with_suffix(".partial")
                partial.write_text(json.dumps({"time": round(time.time(), 3), "doing": doing}) + "\n")
                partial.replace(self.note)


def watch(pid: int, rank: int, timeout: float, folder: Path) -> None:
    """The watchdog's end."""
    doing = STARTING
    while True:
        limit = max(timeout, START_SECONDS) if doing == STARTING else timeout
        ready, _, _ = select.select([0], [], [], limit)
        if ready:
            lines = os.read(0, 65_536)
            if not lines:
                return  # the worker has ended
            doing = lines.decode().split("\n")[-2]
        elif alive(pid):
            stop(pid, f"worker {rank} (process {pid}, {state(pid)}) made no progress for {limit:g} s; its last was {doing}", folder, rank)
            return
        else:
            return


def stop(pid: int, line: str, folder: Path, rank: int) -> None:
    """Kills the process; first writes where it stands, if that can be had."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{time.time_ns()}-worker-{rank}.txt").write_text(f"{line}; stopped\n\n{stack(pid)}\n")
    print(line, file=sys.stderr, flush=True)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def stack(pid: int) -> str:
    """Every Python thread's stack, read from outside: the process need not run for it."""
    tool = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if tool is None:
        return "py-spy was not found"
    try:
        found = subprocess.run(
            [tool, "dump", "--nonblocking", "--pid", str(pid)], capture_output=True, text=True, timeout=STACK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "py-spy did not answer"
    return found.stdout or found.stderr


def state(pid: int) -> str:
    """The kernel's word for what the process does: running, sleeping, stopped ..."""
    with contextlib.suppress(OSError, IndexError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(line for line in lines if line.startswith("State:")).partition("(")[2].rstrip(")")
    return "in an unknown state"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    watch(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
