"""Checkpoints: a folder `step-N` that exists whole or not at all.

Every rank writes its shards with torch's distributed checkpoint into a temporary folder and returns the SHA-256 of its
files; rank 0 writes MANIFEST.json (hashes, plan, progress, configuration, versions), syncs, and renames. Nothing is read
before its hash was verified: DCP loads a flipped bit without a word, and its metadata is a pickle.
"""

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter

MANIFEST = "MANIFEST.json"
PACKAGES = ("torch", "torchrec", "ray", "pyarrow", "sml-dist")


class Damaged(Exception):
    """A checkpoint that must not be used: says which file, and why."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint and what its manifest says."""

    path: Path
    manifest: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. Collective: every rank calls `save` and `load`."""

    def __init__(self, folder: str | Path, keep: int = 2):
        self.folder, self.keep = Path(folder), keep

    def save(self, step: int, state: dict[str, Any], manifest: dict[str, Any], best: int | None = None) -> Path:
        """Commits `state` (tensors only) as step-N; then removes all but the newest `keep` and the `best` step."""
        final = self.folder / f"step-{step:09d}"
        if final.exists():
            return final
        partial = self.folder / f".partial-{_agree(uuid.uuid4().hex)}"
        writer = FileSystemWriter(partial, single_file_per_rank=True, sync_files=True, thread_count=1)
        dcp.save(state, storage_writer=writer)
        hashes = _gathered({path.name: _sha256(path) for path in partial.glob(f"__{dist.get_rank()}_*")})
        if dist.get_rank() == 0:
            hashes[".metadata"] = _sha256(partial / ".metadata")
            _write_manifest(partial, manifest | {"step": step, "files": hashes, "versions": {p: version(p) for p in PACKAGES}})
            os.rename(partial, final)
            _sync(self.folder)
            self._prune(best)
        dist.barrier()
        return final

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint whose files are what its manifest says; damaged ones are named and passed over."""
        found = None
        if dist.get_rank() == 0:
            found = self._newest_sound()
        return _agree(found)

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step, verified. Raises Damaged."""
        return verify(self.folder / f"step-{step:09d}")

    def _newest_sound(self) -> Checkpoint | None:
        for path in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                return verify(path)
            except Damaged as error:
                print(f"checkpoint {error}; using the one before", flush=True)
        return None

    def _prune(self, best: int | None) -> None:
        saved = sorted(self.folder.glob("step-*"))
        for path in saved[: -self.keep]:
            if path.name != f"step-{best or -1:09d}":
                shutil.rmtree(path)
        for path in self.folder.glob(".partial-*"):
            shutil.rmtree(path, ignore_errors=True)


def load(checkpoint: Checkpoint, state: dict[str, Any]) -> None:
    """Fills the tensors of `state`, on any number of workers."""
    dcp.load(state, storage_reader=FileSystemReader(checkpoint.path))


def verify(path: Path) -> Checkpoint:
    """The checkpoint at `path` with every file's hash checked. Raises Damaged."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        hashes = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path / MANIFEST} is unreadable ({error})") from None
    for name, expected in hashes.items():
        if not (path / name).is_file():
            raise Damaged(f"{path / name} is missing")
        if _sha256(path / name) != expected:
            raise Damaged(f"{path / name} is damaged (its SHA-256 is not the manifest's)")
    return Checkpoint(path, manifest)


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with open(folder / MANIFEST, "w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync(folder)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _agree(value: Any) -> Any:
    """Rank 0's value on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _gathered(mine: dict[str, str]) -> dict[str, str]:
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, mine)
    return {name: digest for part in parts for name, digest in part.items()}
