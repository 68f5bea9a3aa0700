"""Population based training: a trial keeps its checkpoints for others, and another goes on from them.

Tables and optimiser state are not copied: a checkpoint's files never change, so a hard link holds one that its own run
has pruned (a copy does, where the file system has no links). What is taken is a run's whole state, its best weights and
its cursor included; then what resumes any run resumes this one, under settings of its own.
"""

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from sml_dist.train.checkpoint import PARTIAL
from sml_dist.train.report import RunFolder

KEPT = 2  # donations of a trial; who comes late takes a newer one
TAKEN = "taken.json"  # of a run folder: what it took last


def donate(run: Path, donors: Path, id: int) -> dict[str, Any]:
    """Keeps a run's checkpoints as they are. Call it while the run writes none."""
    steps, mine = steps_in(run / "checkpoints"), donors / f"{id:05d}"
    if not (mine / steps[-1]).exists():
        partial = mine / new_partial()
        for name in steps:
            link(run / "checkpoints" / name, partial / name)
        os.rename(partial, mine / steps[-1])
    for old in steps_in(mine)[:-KEPT]:
        shutil.rmtree(mine / old, ignore_errors=True)
    return {"id": id, "kept": str(mine / steps[-1])}


def take(donated: dict[str, Any], run: Path, params: dict[str, Any]) -> int:
    """Puts what was kept in the place of a run's own checkpoints; the step from which the run goes on.

    Killed meanwhile, it goes on from its own newest or from the donor's, both whole. A trial that is started again under
    the same `params` keeps what it has made of them.
    """
    kept = Path(donated["kept"])
    if not kept.exists():
        kept = kept.parent / steps_in(kept.parent)[-1]
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
    return int(kept.name.removeprefix("step-"))


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
