"""Raw logs to be scored, under the run's own schema, vocabularies and statistics."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa

from sml_dist.data.clean import label_or_null, weight_or_null
from sml_dist.data.job import Part, cleaned
from sml_dist.data.quarantine import Tally
from sml_dist.data.schema import Schema
from sml_dist.data.sources import columns_of
from sml_dist.data.spans import PART_BYTES, RawFile, group_spans, list_files
from sml_dist.data.survey import survey
from sml_dist.scoring.raw_keys import as_key, key_types
from sml_dist.scoring.rows import ROLES, Rows, label_keys
from sml_dist.scoring.trained import Described
from sml_dist.spec import InputError
from sml_dist.stages import ShowStage


@dataclass(frozen=True)
class RawRows:
    """`columns` are read, `keys` passed on. Rows that must be `labelled` are rejected for a bad label or weight; otherwise these are
    null where they are bad. Parts are known after the survey, and so are the `types` of the keys that are raw columns."""

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
        return {"files": files, "part_bytes": self.part_bytes}

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
                columns |= self._key(name, found.rows, raw, path)
            yield Rows(model.encoder.encode(found.rows), pa.table(columns), path, found.rejects)

    def _key(self, name: str, rows: pa.Table, raw: pa.Table, path: str) -> dict[str, pa.Array]:
        """The columns of a key: of several labels one for each."""
        if name == "label":
            targets = self.schema.targets
            labels = zip(label_keys([*targets]), targets.values(), strict=True)
            return {key: label_or_null(raw, self.schema, label) for key, label in labels}
        if name == "weight":
            return {name: weight_or_null(raw, self.schema)}
        return {name: rows[name] if name in ROLES else as_key(raw[name], name, self.types[name], path)}


def raw_rows(
    pattern: str,
    schema: Schema,
    keys: list[str] | None,
    part_bytes: int = PART_BYTES,
    *,
    splits: list[str] | None,
    labelled: bool = False,
    option: str = "--input",
) -> RawRows:
    """Raw logs with the first file's columns; without `keys` the label is one where it is there. Raises InputError, for splits too."""
    files = list_files(pattern, option, schema)
    if splits:
        raise InputError(f"--split {','.join(splits)}: {option} {pattern} is raw logs, which have no splits; leave the option out")
    names = columns_of(files[0], schema)
    labels = [label.column for label in schema.targets.values()]
    roles = {"weight": schema.weight, "group": schema.group, "timestamp": schema.timestamp and schema.timestamp.column}
    needed = [*schema.inputs, *labels, *filter(None, [schema.weight])] if labelled else schema.inputs
    keys = ["label"] * ({*labels} <= {*names}) if keys is None else keys
    columns = [(key, column) for key in keys for column in (labels if key == "label" else [roles.get(key, key)])]
    for key, column in columns:
        if column not in names:
            wanted = repr(column) if key not in ROLES else f"{column!r}, the schema's {key}" if column else f"that is its {key!r}"
            raise InputError(f"{files[0].path} has no column {wanted}; it has {', '.join(names)}")
    return RawRows(schema, files, list(dict.fromkeys([*needed, *(column for _, column in columns)])), keys, labelled, part_bytes)
