"""The checkpoints of a run: each exists whole or not at all, and is written while training goes on.

    save     copies this worker's pieces (what training must wait for), then a thread of each worker writes and syncs one
             file, the workers tell each other how it went, and worker 0 writes MANIFEST.json, syncs, and renames;
             without `background` nothing is copied, and training waits for all of it
    latest   the newest checkpoint whose every file has the SHA-256 of its manifest; workers share the hashing. Damaged ones
             are passed over, but where none is sound nothing is begun anew in their place

A checkpoint in which a number is not finite is never made. What could not be written is tried again (storage.py), then
raised on every worker alike at the next `save` or `wait`; the checkpoints before it stay.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from sml_dist.config.train import LONGEST
from sml_dist.spec import RunError
from sml_dist.train.checkpoint import (
    FORMAT,
    MANIFEST,
    PARTIAL,
    Checkpoint,
    Damaged,
    OtherFormat,
    anew,
    none_sound,
    read,
    seal,
    step_name,
    steps,
    take_that_version,
    verify,
)
from sml_dist.train.code import versions
from sml_dist.train.finite import Diverged
from sml_dist.train.shards import Incomplete, chunks, index_of, merged, nonfinite
from sml_dist.train.state import Piece, mine
from sml_dist.train.storage import Storage

NICENESS = 10  # of the writer's thread, above the process' own
POLL_SECONDS = 0.2


class Checkpoints:
    """The checkpoints of one run; every rank calls the same methods in the same order.

    `durable` is called by each rank's writer first: what must be on disk before the checkpoint counts. Whoever waits here calls
    the storage's `beat` while its own bytes move, and while it waits for other ranks, which are watched themselves. That is why
    the writers' group has a year to wait: a slow disk may take any time, and one that hangs is its own worker's watchdog's to find.

    The copies of `background` stay for the next save: as much host memory as the weights and the state of this worker
    (embeddings/capacity.py counts it).
    """

    def __init__(self, storage: Storage, keep: int = 2, durable: Callable[[], None] = lambda: None, background: bool = True):
        self.storage, self.keep, self.durable, self.background = storage, keep, durable, background
        # a group of the writers' own: theirs and training's collectives go on side by side
        self.group = dist.new_group(backend="gloo", timeout=timedelta(seconds=LONGEST))
        self.busy = threading.Lock()  # held by the writer at its own part of a save, not while it waits for the other ranks
        self.copies: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}
        self.thread: threading.Thread | None = None
        self.fault: Exception | None = None
        self.written: dict[str, Any] | None = None
        self.waited = 0.0  # seconds, for the save before

    def save(self, step: int, pieces: list[Piece], manifest: dict[str, Any], best: int | None = None) -> None:
        """Starts to write the pieces as step-N, after which all but the newest `keep`, and the `best` of each, go.

        Raises the fault of the save before (see `wait`); without `background` its own. Its manifest has the seconds that training
        stood still until it began: copying, and waiting for the save before.
        """
        self.wait()
        started = time.monotonic()
        own = mine(pieces)
        written = self._copied(own) if self.background else [replace(piece, tensor=piece.tensor.detach()) for piece in own]
        blocked, self.waited = self.waited + time.monotonic() - started, 0.0
        about = manifest | {"step": step, "blocked_seconds": round(blocked, 4)}
        self.thread = threading.Thread(target=self._save, args=(step, written, about, best), name="checkpoint", daemon=True)
        self.thread.start()
        if not self.background:
            self.wait()
            self.waited = 0.0  # as this save's own seconds

    def wait(self) -> None:
        """Until the save under way is done. Raises RunError if it could not be written, Diverged if a number was not finite."""
        if self.thread is not None:
            started = time.monotonic()
            seen = self.storage.moved
            while self.thread.is_alive():
                self.thread.join(POLL_SECONDS)
                if self.storage.moved != seen or not self.busy.locked():
                    seen = self.storage.moved
                    self.storage.beat()
            self.thread, self.waited = None, time.monotonic() - started
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault

    def meet(self) -> None:
        """Waits for all ranks to come here, each of which may have had more to read than this one."""
        all_here = dist.barrier(self.group, async_op=True)
        while not all_here.is_completed():
            time.sleep(0.01)
            self.storage.beat()
        all_here.wait()

    def take_written(self) -> dict[str, Any] | None:
        """What there is to tell of the last save that was completed: {"step", "seconds", "blocked_seconds", "bytes"}; once.

        The bytes are those of all workers together.
        """
        written, self.written = self.written, None
        return written

    def latest(self, instead: str | None = None) -> Checkpoint | None:
        """The newest sound checkpoint, None where there is none at all. Raises InputError where all are damaged, and for one of
        another format that is newer than the sound one.

        `instead`: what the user can do where they are not those of the run that is to go on.
        """
        damaged: list[str] = []
        for name in agree(steps(self.storage) if dist.get_rank() == 0 else None):
            try:
                fault = self._fault_of(name)
            except OtherFormat as error:
                raise take_that_version(error, instead or anew(self.storage)) from None
            if fault:
                damaged.append(fault)
                continue
            return replace(read(self.storage, name), passed_over=tuple(damaged))
        if damaged:
            raise none_sound(self.storage, damaged[0], instead or anew(self.storage))
        return None

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step. Raises RunError if it is not sound, and InputError for one of another format."""
        try:
            fault = self._fault_of(step_name(step))
        except OtherFormat as error:
            raise take_that_version(error, anew(self.storage)) from None
        if fault:
            raise RunError(f"checkpoint {fault}; the run's best weights are lost")
        return read(self.storage, step_name(step))

    def named(self, name: str) -> Checkpoint:
        """The checkpoint of a folder. Raises Damaged or OtherFormat on every rank alike."""
        if fault := self._fault_of(name):
            raise Damaged(fault)
        return read(self.storage, name)

    def _fault_of(self, name: str) -> str | None:
        """How a checkpoint is damaged; each rank hashes its share of the files. Raises OtherFormat."""
        mine: Exception | None = None
        try:
            verify(self.storage, name, dist.get_rank(), dist.get_world_size())
        except (Damaged, OtherFormat) as error:
            mine = error
        self.meet()
        faults: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(faults, mine)
        fault = next((fault for fault in faults if fault), None)
        if isinstance(fault, OtherFormat):
            raise fault
        return fault and str(fault)

    def _copied(self, pieces: list[Piece]) -> list[Piece]:
        """Copies in memory that is kept from save to save: fresh pages would cost more than the copying."""
        found = []
        for piece in pieces:
            source, place = piece.tensor.detach(), (piece.name, piece.offset)
            if place not in self.copies:
                self.copies[place] = torch.empty(source.shape, dtype=source.dtype)
            found.append(replace(piece, tensor=self.copies[place].copy_(source)))
        return found

    def _save(self, step: int, pieces: list[Piece], manifest: dict[str, Any], best: int | None) -> None:
        """The writer's thread: any outcome is every rank's."""
        give_way()
        started = time.monotonic()
        name = step_name(step)
        try:
            folder = agree(PARTIAL + uuid.uuid4().hex, self.group)
            outcomes: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
            with self.busy:
                outcome = self._written(folder, pieces)
            dist.gather_object(outcome, outcomes, dst=0, group=self.group)
            with self.busy:
                fault = self._complete(folder, name, manifest, outcomes, best) if outcomes is not None else None
            self.fault, size = agree((fault, sum(each.get("bytes", 0) for each in outcomes or [])), self.group)
            if self.fault is None:
                seconds = round(time.monotonic() - started, 3)
                blocked = manifest["blocked_seconds"] if self.background else seconds
                self.written = {"step": step, "seconds": seconds, "bytes": size, "blocked_seconds": blocked}
        except Exception as error:  # a rank died: so does this one, at its next collective; until then it is said
            self.fault = error

    def _written(self, folder: str, pieces: list[Piece]) -> dict[str, Any]:
        """This rank's part: {"files", "tensors", "bytes"}, or {"fault"}."""
        file = f"rank-{dist.get_rank():05d}.safetensors"
        try:
            if name := nonfinite(pieces, self.storage.advance):
                return {"fault": Diverged(f"{name} holds a number that is not finite; no checkpoint was made of it")}
            self.storage.tried(self.durable)
            files = {file: self.storage.write(f"{folder}/{file}", lambda: chunks(pieces))}
            return {"files": files, "tensors": index_of(pieces, file), "bytes": sum(piece.tensor.nbytes for piece in pieces)}
        except OSError as error:
            return {"fault": self._unwritten(folder, error)}

    def _complete(self, folder: str, name: str, manifest: dict[str, Any], outcomes: list[Any], best: int | None) -> Exception | None:
        """Rank 0's part: the manifest makes a folder of files a checkpoint. Returns the fault, if any."""
        try:
            for outcome in outcomes:
                if "fault" in outcome:
                    raise outcome["fault"]
            files = {file: digest for outcome in outcomes for file, digest in outcome["files"].items()}
            tensors = merged([outcome["tensors"] for outcome in outcomes])
            about = {"format": FORMAT} | manifest | {"versions": versions(), "files": files, "tensors": tensors}
            about["sha256"] = seal(about)
            self.storage.write(f"{folder}/{MANIFEST}", lambda: [json.dumps(about, indent=1).encode()])
            self.storage.tried(lambda: self.storage.sync_folder(folder))
            self._replace(folder, name)
            self.storage.tried(self.storage.sync_folder)
            self._prune(name, best)
        except (Diverged, RunError, Incomplete) as error:
            self.storage.remove(folder)
            return error
        except OSError as error:
            self.storage.remove(folder)
            return self._unwritten(folder, error)
        return None

    def _replace(self, folder: str, name: str) -> None:
        """Renames; what had the name is a checkpoint of the same step that was passed over as damaged."""
        if name in self.storage.names():
            self.storage.rename(name, f"{PARTIAL}{name}")
        self.storage.rename(folder, name)

    def _unwritten(self, folder: str, error: OSError) -> RunError:
        last = next(iter(self._steps_or_none()), "none")
        return RunError(
            f"a checkpoint could not be written to {self.storage.path(folder)} after {len(self.storage.waits) + 1} tries: "
            f"{error.strerror or error}; the last good one is {last}. Mend the storage, then the same command goes on from there"
        )

    def _steps_or_none(self) -> list[str]:
        with contextlib.suppress(OSError):
            return steps(self.storage)
        return []

    def _prune(self, name: str, best: int | None) -> None:
        """Keeps the newest, any of which may be gone back to, and the best of each; sweeps what crashes left, and steps after this one,
        which were passed over as damaged."""
        recent = [each for each in steps(self.storage) if each <= name][: self.keep]
        bests = [best, *(self._best_of(each) for each in recent[1:])]
        keep = {*recent, *(step_name(step) for step in bests if step is not None)}
        for each in self.storage.names():
            if each.startswith((PARTIAL, "step-")) and each not in keep:
                self.storage.remove(each)

    def _best_of(self, name: str) -> int | None:
        with contextlib.suppress(Damaged, OtherFormat):
            return read(self.storage, name).manifest.get("progress", {}).get("best_step")
        return None


def give_way() -> None:
    """Lets every other thread go first: where cores are busy a writer at their own priority would halve a step's speed."""
    thread = threading.get_native_id()
    with contextlib.suppress(OSError, AttributeError):  # where threads have no priority of their own
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


def agree(value: Any, group: Any = None) -> Any:
    """Rank 0's value on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]
