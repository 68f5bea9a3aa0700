"""Population based training: a trial keeps its checkpoints for others, and another goes on from them.

Tables and optimiser state are not copied: a checkpoint's files never change, so a hard link holds one that its own run
has pruned (a copy does, where the file system has no links). What is taken is a run's whole state, its best weights and
its cursor included; then what resumes any run resumes this one, under settings of its own.
"""

import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

from sml_dist.train.checkpoint import MANIFEST, PARTIAL
from sml_dist.train.run_folder import RunFolder

KEPT = 2  # donations of a trial; who comes late takes a newer one
TAKEN = "taken.json"  # of a run folder: what it took last


def donate(run: Path, donors: Path, id: int) -> dict[str, Any]:
    """Keeps a run's checkpoints as they are, once however often it is asked to. Call it while the run writes none.

    Names are by time, not by step: a run that took a checkpoint of an earlier step comes to its own old steps again.
    """
    steps, mine = steps_in(run / "checkpoints"), donors / f"{id:05d}"
    kept = donations(mine)[-1:]
    if not kept or manifest(kept[0]) != manifest(run / "checkpoints"):
        partial, whole = mine / new_partial(), mine / f"{time.time_ns():020d}"
        for name in steps:
            link(run / "checkpoints" / name, partial / name)
        os.rename(partial, whole)
        kept = [whole]
    for old in donations(mine)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return {"id": id, "kept": str(kept[0])}


def take(donated: dict[str, Any], run: Path, params: dict[str, Any]) -> int:
    """Puts what was kept in the place of a run's own checkpoints; the step from which the run goes on.

    Killed meanwhile, it goes on from its own newest or from the donor's, both whole. A trial that is started again under
    the same `params` keeps what it has made of them.
    """
    kept = Path(donated["kept"])
    if not kept.exists():
        kept = donations(kept.parent)[-1]
    folder, note = RunFolder(run), {"kept": str(kept), "params": params}
    if folder.read_json(TAKEN) != note:
        checkpoints, steps = run / "checkpoints", steps_in(kept)
        for name in steps:
            partial = checkpoints / new_partial()
            link(kept / name, partial)
            if (checkpoints / name).exists():
                os.rename(checkpoints / name, checkpoints / new_partial())
            os.rename(partial, checkpoints / name)
        for own in set(steps_in(checkpoints)) - set(steps):
            shutil.rmtree(checkpoints / own)
        folder.write_json(TAKEN, note)
    return int(steps_in(kept)[-1].removeprefix("step-"))


def donations(mine: Path) -> list[Path]:
    """A trial's, the oldest first."""
    return sorted(path for path in mine.glob("*") if path.name.isdigit())


def manifest(checkpoints: Path) -> bytes:
    """Of the newest checkpoint: it has the hashes of all files and the history that led to them."""
    return (checkpoints / steps_in(checkpoints)[-1] / MANIFEST).read_bytes()


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("step-*"))


def new_partial() -> str:
    """A name that the run's next checkpoint sweeps away."""
    return PARTIAL + uuid.uuid4().hex


def link(source: Path, target: Path) -> None:
    """The folder's files under another name."""
    shutil.copytree(source, target, copy_function=link_or_copy)


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
