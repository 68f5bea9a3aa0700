"""The run folder: what a run writes for people and tools to read.

config.yaml  plan.txt  metrics.jsonl  dataset/ (see dataset_copy.py)  checkpoints/step-*/  summary.json
code.json (the commit)  about.json (dataset, fields, plan, machine)  curves_SPLIT.json (of its last evaluation)
heartbeat.json (worker 0 is alive; see watchdog.py)  logs/rank-*.jsonl (see logs.py)
error.json (why a run must not be tried again as it is)  ledger/ (with train.record_rows)  stacks/ (of workers that hung)
"""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sml_dist.spec import json_safe
from sml_dist.train.storage import append
from sml_dist.whole_files import WholeFiles


class RunFolder(WholeFiles):
    """Files of one run. Of its workers only rank 0 writes, except error.json, which any that fails writes; the command writes its own."""

    def __init__(self, path: str | Path):
        super().__init__(path)
        self.unwritten = ""  # lines of metrics.jsonl

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def begin(self, config: str, plan: str) -> None:
        """What a run writes before its first step, or before it goes on: the summary of an earlier end no longer holds."""
        self.remove("summary.json")
        self.write("config.yaml", config)
        self.write("plan.txt", plan)

    def log(self, **values: Any) -> None:
        """One line of metrics.jsonl; one that a full disk refuses waits: failing is left to the checkpoints."""
        self.unwritten += json.dumps(json_safe({"time": round(time.time(), 3), **values})) + "\n"
        with contextlib.suppress(OSError):
            append(self.path / "metrics.jsonl", self.unwritten)
            self.unwritten = ""

    def new_lines(self, name: str, *, whole: bool = False) -> Iterator[list[str]]:
        """Each time the lines added to a file since the last; the first time none, or with `whole` all that it has.

        A restarted run that drops lines replaces the file: the new one is read from its start, without the leading lines that were given
        before.
        """
        path, given, inode, offset, wanted = self.path / name, set(), None, 0, whole
        while True:
            lines: list[bytes] = []
            with contextlib.suppress(OSError), open(path, "rb") as file:
                now = os.fstat(file.fileno())
                if another := now.st_ino != inode or now.st_size < offset:
                    inode, offset = now.st_ino, 0
                file.seek(offset)
                text = file.read()
                end = text.rfind(b"\n") + 1
                offset += end
                lines = text[:end].split(b"\n")[:-1]
                if another:
                    lines = list(itertools.dropwhile(lambda line: hash(line) in given, lines))
                given.update(map(hash, lines))
            yield [line.decode(errors="replace") for line in lines] if wanted else []
            wanted = True

    def forget_after(self, step: int) -> None:
        """Drops the metrics of steps that a resumed run does again; a half-written last line goes with them."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            kept = [line for line in path.read_text(errors="replace").splitlines() if _step(line) <= step]
            self.write("metrics.jsonl", "".join(line + "\n" for line in kept))


def objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The objects that lines of JSON hold, without lines that a kill or a full disk has torn."""
    for line in lines:
        with contextlib.suppress(ValueError):
            if isinstance(found := json.loads(line), dict):
                yield found


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # torn, or no object
        return float("inf")
