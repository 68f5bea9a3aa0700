"""Starting a run from another run's weights: `run.warm_start`, the folder of a checkpoint or of a run.

Tables are matched by field. Where both datasets have a vocabulary for the field its rows are matched by value, so the new
one may have other values in another order; a hashed field is taken while its number of rows stays; of any other the rows
that both have are taken. Dense parameters are matched by name and shape, but those that read fields, numeric values,
sequences or labels by their place are taken only where these kept it (moved.py). Optimiser state comes along where the
optimiser is the same, that of a parameter, its count of steps included, with the parameter alone. Tables count on from the
steps of the state that is taken: Adam's new rows are then as late ones of that run. Rows and parameters that are not taken
start as in any run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import Field, Manifest, by_table, fingerprint, read_manifest
from sml_dist.data.vocab import read_tokens, read_vocabulary
from sml_dist.spec import InputError
from sml_dist.tabular import as_text, rich_table
from sml_dist.train.checkpoint import ANOTHER, MANIFEST, Checkpoint, Damaged, OtherFormat, step_name, take_that_version
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.dataset_copy import holds, places
from sml_dist.train.moved import moved_inputs
from sml_dist.train.optimizers import Optimizers
from sml_dist.train.shards import CheckpointReader
from sml_dist.train.state import COUNTER, Piece, pieces, set_steps
from sml_dist.train.storage import Storage

BLOCK = 64 << 20  # bytes of an old table that are read at a time where its rows are matched by value


@dataclass(frozen=True)
class Match:
    """What of a table is taken: `taken` of its `of` rows; none for the reason in `how`.

    `rows` has for each new row the old row, or -1. Without it, the first rows are taken, each for itself.
    """

    taken: int
    of: int
    how: str
    rows: np.ndarray | None = None


def warm_start(
    config: RunConfig, model: DistributedModelParallel, optimizers: Optimizers, manifest: Manifest, beat: Callable[[], None] = lambda: None
) -> tuple[str, int]:
    """Loads what the checkpoint `run.warm_start` has for this run; a table that says what, and the step tables count on from.

    Collective. Raises InputError.
    """
    found = open_checkpoint(config.run.warm_start, beat)
    was, old, fields = found.config, other_dataset(found, config.data.path), by_table(manifest)
    matches = dict(match_tables(found, old, config, manifest))
    same_tables = was.embedding.optimizer == config.embedding.optimizer
    same_dense = was.train.optimizer == config.train.optimizer
    lines, taken, dense, mine = [], set(), [], pieces(model, optimizers)
    moved, readers = moved_inputs(config, manifest, old[1]) if old else ([], set())
    fitting = {p.name for p in mine if shape_of(found.reader, p.name) == p.whole and p.name.removeprefix("model.") not in readers}
    for piece in mine:
        table, _, what = piece.name.partition(".")
        if table in matches:
            match = matches[table]
            if match.taken and (what == "weight" or same_tables):
                if found.reader.holds(piece.name):
                    take_rows(found.reader, piece, match)
                    taken.add(piece.name)
                elif what == COUNTER:  # the table was under FBGEMM's optimiser, whose state has no count
                    piece.tensor.fill_(found.table_steps)
        elif piece.name in fitting and (piece.name.startswith("model.") or (same_dense and parameter_of(piece.name) in fitting)):
            dense.append(piece)
    states = {name.partition(".")[0] for name in found.reader.index if not name.endswith(".weight")}
    counted = same_tables and any(match.taken for table, match in matches.items() if table in states)
    steps = found.table_steps if counted else 0  # on every worker alike, whichever tables it has
    if counted:
        set_steps(model, steps)
    found.reader.fill(dense)
    taken |= {piece.name for piece in dense}
    for table, match in sorted(matches.items()):
        counts = (match.taken, fields[table].rows - match.taken, match.of - match.taken)
        lines.append((fields[table].name, *(f"{count:,} rows" for count in counts), match.how))
    wanted = [piece.name for piece in mine if piece.name.startswith("model.")]
    fresh = [name.removeprefix("model.") for name in wanted if name not in taken]
    reasons = {f"other or moved {', '.join(moved)}": [name for name in fresh if name in readers]}
    reasons["other or new"] = [name for name in fresh if name not in readers]
    notes = [f"{why}: {', '.join(names[:3])}{' ...' * (len(names) > 3)}" for why, names in reasons.items() if names]
    lines.append(("dense part", f"{len(wanted) - len(fresh)} tensors", f"{len(fresh)} tensors", "", "; ".join(notes) or "by name"))
    state = [name for same, name in ((same_tables, "tables"), (same_dense, "dense")) if same]
    lines.append(("optimiser state", ", ".join(state) or "none", "the rest", "", ""))
    if dropped := [field.name for table, field in by_table(old[1]).items() if table not in fields] if old else []:
        lines.append(("dropped", "", "", "", f"fields that are no more: {', '.join(sorted(dropped))}"))
    return rendered(found, lines), steps


def open_checkpoint(where: str, beat: Callable[[], None] = lambda: None) -> Checkpoint:
    """The checkpoint of a folder, whatever its name; of a run's folder that of its best evaluation, which scoring and exports take too,
    or the newest where there was none. Collective. Raises InputError."""
    folder = Path(where).absolute()
    if (folder / MANIFEST).is_file():
        return named(Checkpoints(Storage(folder.parent, beat=beat)), folder.name, "name another, or the folder of its run")
    store = Checkpoints(Storage(folder / "checkpoints", beat=beat))
    newest = store.latest(f"{ANOTHER} as run.warm_start")
    if newest is None:
        raise InputError(f"run.warm_start {where} is neither a checkpoint nor the folder of a run that has one")
    best = newest.manifest["progress"]["best_step"]
    if best in (None, newest.manifest["step"]):
        return newest
    return replace(named(store, step_name(best), "name another of this run's"), passed_over=newest.passed_over)


def named(store: Checkpoints, name: str, instead: str) -> Checkpoint:
    try:
        return store.named(name)
    except Damaged as error:
        raise InputError(f"run.warm_start: checkpoint {error}; {instead}") from None
    except OtherFormat as error:
        raise InputError(f"run.warm_start: checkpoint {take_that_version(error, ANOTHER)}") from None


def match_tables(
    checkpoint: Checkpoint, old: tuple[str, Manifest] | None, config: RunConfig, manifest: Manifest
) -> Iterator[tuple[str, Match]]:
    """(table, match) of every table of the new dataset."""
    for name, field in by_table(manifest).items():
        shape = shape_of(checkpoint.reader, f"{name}.weight")
        if shape is None:
            yield name, Match(0, 0, "new field")
        elif shape[1] != config.embedding.dim:
            yield name, Match(0, shape[0], f"embedding.dim was {shape[1]}")
        elif old is None:
            yield name, Match(field.rows, shape[0], "the same dataset")
        else:
            yield name, match_field(field, shape[0], *old, manifest, config.data.path)


def other_dataset(checkpoint: Checkpoint, new_root: str) -> tuple[str, Manifest] | None:
    """Where the checkpoint's own dataset lies, and its manifest: its vocabularies say what rows mean. None where it is the new one."""
    if checkpoint.manifest["dataset"] == fingerprint(new_root):
        return None
    kept, path = places(checkpoint)
    root = kept if holds(kept, checkpoint.manifest["dataset"]) else path
    try:
        manifest = read_manifest(root, checkpoint.config.data.label)
    except InputError as error:
        raise InputError(f"run.warm_start: the checkpoint's dataset is needed to match its rows by value, but {error}") from None
    if fingerprint(root) != checkpoint.manifest["dataset"]:
        raise InputError(f"run.warm_start: {root} is not the dataset any more that {checkpoint.path} was trained on; put that back")
    return root, manifest


def match_field(field: Field, old_rows: int, old_root: str, old: Manifest, new: Manifest, new_root: str) -> Match:
    vocabularies = [manifest.source.get("vocabularies", {}) for manifest in (old, new)]
    if all(field.name in each for each in vocabularies):
        ids = read_vocabulary(old_root, field.name).lookup(read_tokens(new_root, field.name))
        rows = np.concatenate([[0], np.where(ids > 0, ids, -1)])
        return Match(int((rows >= 0).sum()), old_rows, "by value", rows)
    if any(field.name in each for each in vocabularies) or (old_rows != field.rows and is_hashed(field.name, new)):
        return Match(0, old_rows, "its ids mean something else now")
    return Match(min(field.rows, old_rows), old_rows, "by row number")


def is_hashed(name: str, manifest: Manifest) -> bool:
    schema = manifest.source.get("schema", {})
    groups = [*schema.get("categorical", []), *schema.get("multivalued", [])]
    return any(group.get("hash") and name in group["columns"] for group in groups)


def shape_of(reader: CheckpointReader, name: str) -> tuple[int, ...] | None:
    return tuple(reader.index[name]["shape"]) if reader.holds(name) else None


def parameter_of(name: str) -> str:
    """optim.model.head.weight.exp_avg -> model.head.weight"""
    return name.removeprefix("optim.").rpartition(".")[0]


def take_rows(reader: CheckpointReader, piece: Piece, match: Match) -> None:
    """Fills the rows of a table's piece that the old table has. Where they are in another order it reads the old table's columns a block
    of rows at a time, and only the blocks that have one of them."""
    if piece.name.endswith(f".{COUNTER}"):
        reader.fill([piece])
        return
    old_rows, (first, column), (rows, columns) = reader.index[piece.name]["shape"][0], piece.offset, piece.shape
    whole = (old_rows, piece.whole[1])
    if match.rows is None:
        if (rows := min(rows, match.taken - first)) > 0:
            reader.fill([Piece(piece.name, piece.tensor[:rows], whole, piece.offset, (rows, columns))])
        return
    old = match.rows[first : first + rows]
    new = np.flatnonzero(old >= 0)
    new = new[np.argsort(old[new])]
    old = old[new]
    step = max(1, BLOCK // (piece.tensor.element_size() * columns))
    for start in range(0, old_rows, step):
        begin, end = np.searchsorted(old, (start, start + step))
        if begin < end:
            size = min(step, old_rows - start)
            block = Piece(piece.name, piece.tensor.new_empty((size, *piece.tensor.shape[1:])), whole, (start, column), (size, columns))
            reader.fill([block])
            here, there = (torch.from_numpy(each[begin:end]).to(piece.tensor.device) for each in (new, old - start))
            piece.tensor[here] = block.tensor[there]


def rendered(checkpoint: Checkpoint, lines: list[tuple[Any, ...]]) -> str:
    table = rich_table(f"Started from {checkpoint.path}", ("", "taken", "initialised", "left behind", "how"))
    for line in lines:
        table.add_row(*line)
    return "".join(f"a damaged checkpoint is passed over: {fault}\n" for fault in checkpoint.passed_over) + as_text(table, width=120)
