"""The tables that a plan is made for: those of a prepared dataset, or of a short YAML where there is no data yet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.compute as pc
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field as Limits
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, ValidationError
from yaml import YAMLError

from sml_dist.data.dataset import Field, Manifest, multi_column, positions, read_manifest, read_rows
from sml_dist.spec import InputError, first_fault, from_dict, one_line, spec

EXAMPLE = "fields: [{name: user_id, rows: 500000000}]; configs/plans/ holds more"
IDS = 2**31  # prepared datasets hold ids as int32


@dataclass(frozen=True)
class Tables:
    """The fields as a dataset's manifest has them, and the mean number of ids that a row has of each feature."""

    manifest: Manifest
    ids_per_row: dict[str, float]


@spec
class PlannedField:
    """A field of the YAML; `ids_per_row` is a mean, and other than 1 for multivalued fields alone.

    `sequences`: the greatest lengths of the behaviour sequences that share its table, taken to be as long in every row.
    """

    name: str
    rows: Annotated[int, Limits(gt=0, le=IDS)]
    multivalued: bool = False
    ids_per_row: PositiveFloat = 1.0
    sequences: tuple[PositiveInt, ...] = ()

    @property
    def fields(self) -> list[Field]:
        own = Field(name=self.name, rows=self.rows, multivalued=self.multivalued)
        names = (f"{self.name}_sequence_{number}" for number in range(1, len(self.sequences) + 1))
        shared = zip(names, self.sequences, strict=True)
        return [own, *(Field(name=name, rows=self.rows, multivalued=True, of=self.name, length=length) for name, length in shared)]


@spec
class PlannedData:
    """`dense` numeric values beside the fields."""

    fields: Annotated[list[PlannedField], Limits(min_length=1)]
    dense: NonNegativeInt = 0


def read_tables(path: str) -> Tables:
    """The tables of a YAML file; raises InputError that names the file and the key."""
    try:
        data = from_dict(PlannedData, OmegaConf.to_container(OmegaConf.load(path)))
    except FileNotFoundError:
        raise InputError(f"--tables {path}: no such file; configs/plans/ holds examples") from None
    except ValidationError as error:
        raise InputError(f"--tables {path}: {first_fault(error)}; write {EXAMPLE}") from None
    except (OmegaConfBaseException, YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"--tables {path}: {one_line(error)}") from None
    for field in data.fields:
        if field.ids_per_row != 1 and not field.multivalued:
            raise InputError(f"--tables {path}: {field.name} has {field.ids_per_row:g} ids a row; set multivalued: true")
        if field.sequences and field.multivalued:
            raise InputError(f"--tables {path}: {field.name} is multivalued; sequences share the table of a field with one id a row")
    names = [field.name for field in data.fields]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--tables {path}: two fields are named {doubled[0]}")
    manifest = Manifest(
        name=Path(path).stem,
        fields=[part for field in data.fields for part in field.fields],
        dense=[f"dense_{i}" for i in range(data.dense)],
        splits={},
        rows_read=0,
        rows_kept=0,
        rows_rejected=0,
        split_rule="",
    )
    return Tables(manifest, dict.fromkeys(manifest.features, 1.0) | {field.name: field.ids_per_row for field in data.fields})


def dataset_tables(root: str, manifest: Manifest | None = None) -> Tables:
    """The tables of a prepared dataset; ids a row as in the first row group of its first training file."""
    manifest = manifest or read_manifest(root)
    lengths = dict.fromkeys(manifest.features, 1.0)
    files, lists = manifest.splits["train"].files if "train" in manifest.splits else [], [*manifest.multi, *manifest.sequences]
    if lists and files:
        rows = read_rows(root, files[0].path, 0, [multi_column(field.name) for field in lists])
        for field in lists:
            counts = pc.list_value_length(rows[multi_column(field.name)]).to_numpy()
            held = [np.mean(counts > place) for place in range(field.length)] if field.of else [counts.mean()]
            names = positions(field.name, field.length) if field.of else [field.name]
            lengths |= {name: max(float(mean), 0.01) for name, mean in zip(names, held, strict=True)}
    return Tables(manifest, lengths)
