"""features.json: everything that happens to a raw row before the dense part, for readers without sml_dist, and for the service.

`fields` and `dense` say it feature by feature, which is what loader.py reads. `schema` and `statistics` are the same as
sml_dist has them, from which the service makes the Encoder that prepare and training used.
"""

import json
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from sml_dist.data.dataset import Manifest
from sml_dist.data.encode import Encoder, make_encoder
from sml_dist.data.numeric import Statistics
from sml_dist.data.schema import Schema
from sml_dist.data.vocab import read_tokens, vocabulary_path
from sml_dist.scoring.trained import Trained
from sml_dist.serve.layout import FEATURES
from sml_dist.spec import Inside, Measured, from_dict, spec, to_dict

Quantize = Literal["none", "int8", "int4"]
RULES = {
    "id": "hash: fmix64(fnv1a64(utf8(name + '\\0' + value))) mod hash; vocabulary: place of the value in its file, from 1, else 0; "
    "bucket: 0 if missing, else 1 + the number of edges <= x",
    "missing": "an empty string, a null, NaN in a column of floats, or one of `missing`; a list or sequence is without such values",
    "log1p": "sign(x) log(1 + |x|), 0 if missing",
    "standard": "(x - mean) / std, 0 if missing; beyond float32's largest number that number",
    "none": "x, 0 if missing",
    "log_square": "floor(log(x)^2) for x > 2, SP and floor(x) for smaller x, empty if missing; then a value like any other",
    "sequence": "the newest max_length values, the newest first; what is not there is a row of zeros",
    "hour, weekday, weekend": "of the time in UTC, Monday is 0; then a value like any other",
    "int8, int4": "q * scale + bias of the row; an int4 byte holds two numbers, the first in its low half",
}


@spec
class Shard:
    """A file of a table's rows from `first` on."""

    path: Inside
    first: int
    rows: int


@spec
class FieldSpec:
    """A categorical field: where its values come from, how they become ids, where its table lies.

    A sequence has the ids and the table of the field `of`; any other is `of` itself.
    """

    name: str
    of: str
    column: str
    origin: str
    rows: int
    hash: int | None
    vocabulary: Inside | None
    edges: list[Measured] | None
    separator: str | None
    max_length: int | None
    pooling: str
    shards: list[Shard]


@spec
class NumberSpec:
    name: str
    column: str
    transform: str
    mean: Measured
    std: Measured


@spec
class Features:
    quantize: Quantize
    dim: int
    inputs: list[str]
    missing: list[str]
    timestamp: dict[str, Any] | None
    fields: list[FieldSpec]
    dense: list[NumberSpec]
    labels: list[str]
    contributions: list[str]
    schema: Schema
    statistics: Statistics
    rules: dict[str, str] = field(default_factory=lambda: RULES)

    def encoder(self, folder: str | Path) -> Encoder:
        return make_encoder(str(folder), self.schema, self.statistics)


def read_features(folder: str | Path) -> Features:
    """Of an export whose hashes were verified."""
    return from_dict(Features, json.loads((Path(folder) / FEATURES).read_text()))


def describe(model: Trained, quantize: Quantize, shards: dict[str, list[Shard]], contributions: list[str]) -> Features:
    schema, statistics = raw_schema(model.manifest)
    owners = {f.name: f for f in schema.features}
    rows = {table.name: table.rows for table in model.manifest.tables}
    fields = []
    for f in schema.features:
        owner = owners[f.of or f.name]
        fields.append(FieldSpec(
            name=f.name, of=owner.name, column=f.column, origin=f.origin, rows=rows[owner.name], hash=owner.hash,
            vocabulary=vocabulary_path(owner.name) if owner.vocabulary else None,
            edges=statistics.edges[f.column] if f.buckets else None, separator=schema.list_separators.get(f.column) if f.listed else None,
            max_length=f.max_length, pooling=model.config.embedding.pooling if f.origin == "list" else "none", shards=shards[owner.name],
        ))  # fmt: skip
    dense = [
        NumberSpec(name=name, column=column, transform=transform, mean=mean, std=std)
        for name, column, transform in schema.dense
        for mean, std in [statistics.moments.get(name, (0.0, 1.0))]
    ]
    time = to_dict(schema.timestamp) if schema.timestamp else None
    labels = [schema.label.column] if schema.label else model.manifest.labels
    return Features(
        quantize=quantize, dim=model.config.embedding.dim, inputs=schema.inputs, missing=schema.missing, timestamp=time,
        fields=fields, dense=dense, labels=labels, contributions=contributions, schema=schema, statistics=statistics,
    )  # fmt: skip


def raw_schema(manifest: Manifest) -> tuple[Schema, Statistics]:
    """The schema of a dataset's raw rows; of a synthetic dataset one in which a field's value is its row number."""
    if "schema" in manifest.source:
        return from_dict(Schema, manifest.source["schema"]), from_dict(Statistics, manifest.source["statistics"])
    numeric = [{"columns": manifest.dense, "transform": "none"}] if manifest.dense else []
    categorical = [{"columns": [f.name for f in manifest.fields], "min_count": 1}]
    schema = {"name": manifest.name, "format": "csv", "label": "label", "numeric": numeric, "categorical": categorical}
    return from_dict(Schema, schema), Statistics(moments={}, edges={})


def write_vocabularies(model: Trained, folder: Path) -> None:
    """A column `token` for each field that has a vocabulary; written anew, so that the same values give the same bytes."""
    schema, _ = raw_schema(model.manifest)
    (folder / "vocab").mkdir(exist_ok=True)
    for feature, known in zip((f for f in schema.features if not f.of), model.manifest.tables, strict=True):
        if feature.vocabulary:
            raw = "schema" in model.manifest.source
            tokens = read_tokens(model.dataset, feature.name) if raw else pa.array(map(str, range(1, known.rows)), pa.large_string())
            write_vocabulary(folder / vocabulary_path(feature.name), tokens)


def write_vocabulary(path: Path, tokens: pa.Array) -> None:
    pq.write_table(pa.table({"token": tokens.cast(pa.large_string())}), path, compression="zstd", write_page_checksum=True)
