"""Raw logs to be scored, under the run's own schema, vocabularies and statistics."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa

from sml_dist.data.job import Part, cleaned
from sml_dist.data.quarantine import Tally
from sml_dist.data.schema import Schema
from sml_dist.data.sources import columns_of
from sml_dist.data.spans import PART_BYTES, RawFile, group_spans, list_files
from sml_dist.data.survey import survey
from sml_dist.scoring.raw_keys import as_key, key_types
from sml_dist.scoring.rows import ROLES, Rows, named
from sml_dist.scoring.trained import Described
from sml_dist.spec import InputError
from sml_dist.stages import ShowStage


@dataclass(frozen=True)
class RawRows:
    """`columns` are read, `keys` passed on; rows that are `labelled` are rejected for a bad label. Parts are known after the survey,
    and so are the `types` of the keys that are raw columns."""

    schema: Schema
    files: list[RawFile]
    columns: list[str]
    keys: list[str]
    labelled: bool
    part_bytes: int = PART_BYTES
    parts: list[Part] = field(default_factory=list)
    types: dict[str, pa.DataType] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(span.rows for part in self.parts for span in part)

    @property
    def split(self) -> str:
        return "all"

    @property
    def identity(self) -> dict[str, Any]:
        files = [[file.path, fsspec.url_to_fs(file.path)[0].ukey(file.path)] for file in self.files]
        return {"files": files, "labelled": self.labelled, "part_bytes": self.part_bytes}

    def surveyed(self, show: ShowStage) -> "RawRows":
        """With its parts. Finds broken files, and those that lack a column."""
        spans, _ = survey(self.files, self.schema, self.part_bytes, show, columns=self.columns)
        types = key_types(self.files, self.schema, [key for key in self.keys if key not in ROLES])
        return replace(self, parts=group_spans(spans, self.part_bytes), types=types)

    def reader(self) -> "RawRows":
        return replace(self, files=[], parts=[])

    def read(self, part: Part, model: Described, tally: Tally) -> Iterator[Rows]:
        for found in cleaned(part, self.schema, tally, self.columns, labelled=self.labelled):
            path = found.span.file.path
            raw = found.raw.table.take(pa.array(np.searchsorted(found.raw.rows, found.numbers)))
            columns = {"file": pa.repeat(path, len(found.rows)), "row": pa.array(found.numbers)}
            for name in self.keys:
                column = found.rows[name] if name in ROLES else as_key(raw[name], name, self.types[name], path)
                columns |= named(name, column, [*self.schema.targets])
            yield Rows(model.encoder.encode(found.rows), pa.table(columns), path, found.rejects)


def raw_rows(
    pattern: str,
    schema: Schema,
    keys: list[str] | None,
    labelled: bool | None,
    part_bytes: int = PART_BYTES,
    *,
    splits: list[str] | None,
    option: str = "--input",
) -> RawRows:
    """Raw logs as the first file's columns say: labelled, unless told, where it has the label. Raises InputError, for splits too."""
    files = list_files(pattern, option, schema)
    if splits:
        raise InputError(f"--split {','.join(splits)}: {option} {pattern} is raw logs, which have no splits; leave the option out")
    names = columns_of(files[0], schema)
    labels = [label.column for label in schema.targets.values()]
    labelled = {*labels} <= {*names} if labelled is None else labelled
    roles = {"label": labels[0], "weight": schema.weight, "group": schema.group, "timestamp": schema.timestamp and schema.timestamp.column}
    needed = [*schema.inputs, *labels, *filter(None, [schema.weight])] if labelled else schema.inputs
    keys = ["label"] * labelled if keys is None else keys
    columns = {key: roles.get(key, key) for key in keys}
    for key, column in columns.items():
        if column not in names:
            wanted = repr(column) if key not in ROLES else f"{column!r}, the schema's {key}" if column else f"that is its {key!r}"
            raise InputError(f"{files[0].path} has no column {wanted}; it has {', '.join(names)}")
        if key in ("label", "weight") and not labelled:
            raise InputError(f"--keys {key}: it is not read of rows that are scored without their labels; leave it out")
    return RawRows(schema, files, list(dict.fromkeys([*needed, *columns.values()])), keys, labelled, part_bytes)
