"""Splits of a prepared dataset to be scored."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sml_dist.credentials import refuse
from sml_dist.data.dataset import MANIFEST, Manifest, fingerprint, matrix, read_manifest, read_rows
from sml_dist.data.files import file_system, reading
from sml_dist.data.quarantine import Tally
from sml_dist.data.vocab import read_tokens
from sml_dist.scoring.rows import Rows, label_keys
from sml_dist.scoring.trained import Described
from sml_dist.spec import InputError
from sml_dist.stages import ShowStage

PART_ROWS = 1 << 18


class Groups(NamedTuple):
    """Row groups of a file from the `first` on, and the rows of each; `row` rows of the file lie before them."""

    split: str
    path: str
    row: int
    first: int
    rows: list[int]


@dataclass(frozen=True)
class PreparedRows:
    root: str
    manifest: Manifest
    splits: list[str]
    keys: list[str]
    part_rows: int = PART_ROWS

    @property
    def rows(self) -> int:
        return sum(self.manifest.splits[split].rows for split in self.splits)

    @property
    def split(self) -> str:
        return ",".join(self.splits)

    @property
    def identity(self) -> dict[str, Any]:
        return {"dataset": fingerprint(self.root), "splits": self.splits, "part_rows": self.part_rows}

    @property
    def parts(self) -> list[Groups]:
        """In the order of the splits, files and rows; about `part_rows` each, of one file."""
        step = max(1, self.part_rows // self.manifest.row_group_rows)
        return [
            Groups(split, file.path, sum(file.row_groups[:first]), first, file.row_groups[first : first + step])
            for split in self.splits
            for file in self.manifest.splits[split].files
            for first in range(0, len(file.row_groups), step)
        ]

    def surveyed(self, show: ShowStage) -> "PreparedRows":
        """The manifest says all."""
        return self

    def reader(self) -> "PreparedRows":
        return replace(self, manifest=replace(self.manifest, splits={}, rejects=[]))

    def read(self, part: Groups, model: Described, tally: Tally) -> Iterator[Rows]:
        row = part.row + 1
        for group, count in enumerate(part.rows, part.first):
            table = read_rows(self.root, part.path, group, rows=count)
            columns = {"file": pa.repeat(part.path, count), "row": pa.array(np.arange(row, row + count))}
            for name in self.keys:
                columns |= self._key(name, table, part.split)
            tally.add(count, {})
            row += count
            yield Rows(table, pa.table(columns), part.path)

    def _key(self, name: str, table: pa.Table, split: str) -> dict[str, pa.Array]:
        """The columns of a key: of several labels one for each."""
        if name == "label" and len(self.manifest.labels) > 1:
            return {key: pa.array(values) for key, values in zip(label_keys(self.manifest.labels), matrix(table[name]).T, strict=True)}
        return {name: pa.repeat(split, len(table)) if name == "split" else table[name]}


def is_prepared(path: str, option: str) -> bool:
    """Whether a folder is a prepared dataset. Raises InputError where it cannot be looked at, or where results would keep a secret."""
    refuse(path, option)
    fs, folder = file_system(path)
    with reading(path):
        return fs.exists(f"{folder}/{MANIFEST}")


def prepared_rows(root: str, model: Described, splits: list[str] | None, keys: list[str] | None) -> PreparedRows:
    """All splits, unless told. Raises InputError, above all where its ids do not mean what the run's do."""
    manifest = read_manifest(root)
    check_same_features(root, manifest, model)
    splits = splits or list(manifest.splits)
    for split in splits:
        if split not in manifest.splits:
            raise InputError(f"--split {split}: {root} has {', '.join(manifest.splits)}")
    known = ["split", "label", *(name for name in ("weight", "group", "timestamp") if getattr(manifest, name))]
    keys = ["split", "label"] if keys is None else keys
    for key in keys:
        if key not in known:
            raise InputError(f"--keys {key}: a prepared dataset keeps no raw columns; {root} has {', '.join(known)}")
    return PreparedRows(root, manifest, splits, keys)


def check_same_features(root: str, manifest: Manifest, model: Described) -> None:
    """A dataset encoded by another schema, other statistics or vocabularies would be scored without a word, and wrongly."""
    if fingerprint(root) == model.checkpoint.manifest["dataset"]:
        return
    if difference := other_than(root, manifest, model):
        raise InputError(f"{root} has {difference} the run's dataset; score its raw logs instead")


def other_than(root: str, manifest: Manifest, model: Described) -> str | None:
    """Why a dataset's ids or numbers do not mean what the run's do, up to `than`; the cause before what follows from it."""
    its, own = ({field.name: field for field in m.fields} for m in (manifest, model.manifest))
    if [replace(field, rows=0) for field in its.values()] != [replace(field, rows=0) for field in own.values()]:
        return "other categorical fields than"
    if manifest.dense != model.manifest.dense:
        return "other numeric features than"
    if manifest.source.get("schema") != model.manifest.source.get("schema"):
        return "the same fields by another schema than"
    for name in model.manifest.source.get("vocabularies", {}):
        if its[name].rows != own[name].rows or not read_tokens(root, name).equals(read_tokens(model.dataset, name)):
            return f"the same fields, but another vocabulary of {name!r} than"
    how = ("split", "extends")  # how a dataset was made, not what its ids and numbers mean
    its_source, own_source = ({key: value for key, value in m.source.items() if key not in how} for m in (manifest, model.manifest))
    what = "other statistics" if "statistics" in its_source else "other settings of synth"
    return f"the same fields, but {what} than" if (its, its_source) != (own, own_source) else None
