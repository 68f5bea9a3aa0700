"""A checkpoint as it lies in its folder `step-N`: safetensors files and MANIFEST.json, which has their hashes and its own.

    steps, read     which there are, and what the manifest of one says
    verify          that every file has the SHA-256 of its manifest
    newest          the newest one whose manifest is sound

Needs no process group. checkpoints.py writes them and finds them again, on all workers together.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sml_dist.config.run import RunConfig, parse
from sml_dist.spec import InputError
from sml_dist.train.shards import CheckpointReader
from sml_dist.train.storage import Storage

MANIFEST = "MANIFEST.json"
FORMAT = 2
PARTIAL = ".partial-"


class Damaged(Exception):
    """A checkpoint that must not be used: says which file, and why."""


class OtherFormat(Exception):
    """A checkpoint that another version wrote, and that is sound: says which file, and which version."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, what its manifest says, and how newer ones are damaged that were passed over for it."""

    storage: Storage
    name: str
    manifest: dict[str, Any]
    passed_over: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return self.storage.path(self.name)

    @property
    def config(self) -> RunConfig:
        """What its run was configured as. Raises InputError."""
        return parse(self.manifest["config"], f"{self.path}/{MANIFEST}")

    @property
    def table_steps(self) -> int:
        """What the tables' optimisers count: the run's steps, after those of the run whose state it was started with."""
        return self.manifest["step"] + self.manifest.get("progress", {}).get("warm_steps", 0)

    @property
    def reader(self) -> CheckpointReader:
        return CheckpointReader(self.storage, self.name, self.manifest["tensors"])


def step_name(step: int) -> str:
    return f"step-{step:09d}"


def newest(storage: Storage) -> Checkpoint | None:
    """Of the checkpoints whose manifest is sound the newest; other files are not looked at. Raises InputError as `latest` does."""
    damaged = []
    for name in steps(storage):
        try:
            return read(storage, name)
        except Damaged as error:
            damaged.append(str(error))
        except OtherFormat as error:
            raise take_that_version(error, anew(storage)) from None
    if damaged:
        raise none_sound(storage, damaged[0], anew(storage))
    return None


def none_sound(storage: Storage, fault: str, instead: str) -> InputError:
    return InputError(f"no checkpoint of {storage.path('')} is sound: {fault}; put its files back, {instead}")


ANOTHER = "or name another run or checkpoint"  # where they are not those of the run that is to go on


def take_that_version(error: OtherFormat, instead: str) -> InputError:
    return InputError(f"{error}: take that version, {instead}")


def anew(storage: Storage) -> str:
    """What else there is to do for a run that is to go on from these checkpoints and cannot."""
    return f"move {storage.path('')} away, or name another run"


def steps(storage: Storage) -> list[str]:
    """The names of all checkpoints, the newest first."""
    return sorted((name for name in storage.names() if name.startswith("step-")), reverse=True)


def read(storage: Storage, name: str) -> Checkpoint:
    """A checkpoint's manifest. Raises Damaged or OtherFormat."""
    where = storage.path(f"{name}/{MANIFEST}")
    try:
        manifest = json.loads(storage.read(f"{name}/{MANIFEST}"))
        kept = manifest.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{where} is unreadable ({error})") from None
    if kept != seal(manifest):
        raise Damaged(f"{where} is damaged (its SHA-256 is not its own)")
    if manifest.get("format") != FORMAT:
        theirs = f"is of format {manifest.get('format')}, which sml-dist {manifest.get('versions', {}).get('sml-dist', '?')} wrote"
        raise OtherFormat(f"{where} {theirs}; this version reads {FORMAT}")
    for file in {*manifest["files"], *(piece["file"] for tensor in manifest["tensors"].values() for piece in tensor["pieces"])}:
        if "/" in file or file not in manifest["files"]:
            raise Damaged(f"{where} names {file!r}, which is no file of it with a hash")
    return Checkpoint(storage, name, manifest)


def verify(storage: Storage, name: str, part: int = 0, parts: int = 1) -> Checkpoint:
    """The checkpoint with the hash of every file (or of this part of them) checked. Raises Damaged or OtherFormat."""
    found = read(storage, name)
    for file, expected in sorted(found.manifest["files"].items())[part::parts]:
        where = storage.path(f"{name}/{file}")
        try:
            digest = storage.sha256(f"{name}/{file}")
        except FileNotFoundError:
            raise Damaged(f"{where} is missing") from None
        except OSError as error:
            raise Damaged(f"{where} cannot be read ({error.strerror or error})") from None
        if digest != expected:
            raise Damaged(f"{where} is damaged (its SHA-256 is not the manifest's)")
    return found


def seal(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest, which holds that of every file of its checkpoint."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
