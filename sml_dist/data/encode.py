"""Clean rows to features: the one path that prepare, scoring and serving share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sml_dist.data.clean import flat, newest
from sml_dist.data.dataset import Field, Manifest, arrow_schema, multi_column
from sml_dist.data.hashing import hash64
from sml_dist.data.numeric import Statistics, bucket_ids, dense_feature, log_square_tokens
from sml_dist.data.schema import Feature, Schema
from sml_dist.data.vocab import Vocabulary, read_vocabulary
from sml_dist.spec import from_dict


def tokens_of(feature: Feature, rows: pa.Table) -> pa.Array:
    """The field's tokens: string[n], or list<string>[n] of a multi-valued one or a sequence."""
    if feature.origin == "column":
        return _one(rows, f"token:{feature.column}")
    if feature.origin == "list":
        lists = _one(rows, f"list:{feature.column}")
        return pc.list_slice(lists, 0, feature.max_length, return_fixed_size_list=False) if feature.max_length else lists
    if feature.origin == "sequence":
        return newest(_one(rows, f"list:{feature.column}"), feature.max_length)
    if feature.origin == "log_square":
        return log_square_tokens(_one(rows, f"number:{feature.column}"))
    return _time_tokens(feature.origin, rows["timestamp"].to_numpy())


def _one(rows: pa.Table, name: str) -> pa.Array:
    return rows[name].combine_chunks()


def _time_tokens(part: str, seconds: np.ndarray) -> pa.Array:
    """Hour of the day, day of the week with Monday 0 (1970-01-01 was a Thursday), or whether that is a weekend; UTC."""
    weekday = (seconds // 86_400 + 3) % 7
    numbers = {"hour": seconds // 3600 % 24, "weekday": weekday, "weekend": (weekday >= 5).astype(np.int64)}[part]
    return pa.array(numbers).cast(pa.string())


def ids_of(tokens: pa.Array, lookup: Callable[[pa.Array], np.ndarray]) -> np.ndarray:
    """int32[n]; each distinct token is looked up once."""
    coded = tokens.dictionary_encode()
    return lookup(coded.dictionary).astype(np.int32)[coded.indices.to_numpy()]


def fields_of(schema: Schema, statistics: Statistics, vocabularies: dict[str, int]) -> list[Field]:
    """The fields that rows are encoded to; `vocabularies` are the rows of the table of each field that has a vocabulary."""
    rows = {
        f.name: vocabularies[f.name] if f.vocabulary else f.hash or len(statistics.edges[f.column]) + 2 for f in schema.features if not f.of
    }
    return [
        Field(name=f.name, rows=rows[f.of or f.name], multivalued=f.listed, of=f.of, length=f.max_length if f.of else None)
        for f in schema.features
    ]


@dataclass(frozen=True)
class Encoder:
    """Features of clean rows (clean.py), with the training rows' vocabularies and statistics."""

    schema: Schema
    statistics: Statistics
    vocabularies: dict[str, Vocabulary]

    @property
    def fields(self) -> list[Field]:
        return fields_of(self.schema, self.statistics, {name: vocabulary.rows for name, vocabulary in self.vocabularies.items()})

    @property
    def dense(self) -> list[str]:
        return [name for name, _, _ in self.schema.dense]

    def encode(self, rows: pa.Table) -> pa.Table:
        """The columns of a prepared dataset that these rows have: features always; label, weight, group, timestamp if present."""
        has = {name: name in rows.column_names for name in ("weight", "group", "timestamp")}
        schema = arrow_schema(self.fields, self.dense, labels=len(self.schema.targets), **has)
        if "label" not in rows.column_names:
            schema = schema.remove(schema.get_field_index("label"))
        columns = {name: _one(rows, name) for name in ("label", "weight", "group", "timestamp") if name in rows.column_names}
        if self.dense:
            columns["dense"] = self._dense(rows)
        columns |= self._ids(rows)
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def _dense(self, rows: pa.Table) -> pa.Array:
        matrix = np.empty((len(rows), len(self.schema.dense)), np.float32)
        for i, (name, column, transform) in enumerate(self.schema.dense):
            matrix[:, i] = dense_feature(_one(rows, f"number:{column}"), transform, self.statistics.moments.get(name))
        return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])

    def _ids(self, rows: pa.Table) -> dict[str, pa.Array]:
        single = [f for f in self.schema.features if not f.listed]
        columns: dict[str, pa.Array] = {}
        if single:
            matrix = np.empty((len(rows), len(single)), np.int32)
            for i, feature in enumerate(single):
                matrix[:, i] = self._feature_ids(feature, rows)
            columns["ids"] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), len(single))
        for feature in self.schema.features:
            if feature.listed:
                columns[multi_column(feature.name)] = self._list_ids(feature, rows)
        return columns

    def _feature_ids(self, feature: Feature, rows: pa.Table) -> np.ndarray:
        if feature.origin == "bucket":
            return bucket_ids(_one(rows, f"number:{feature.column}"), self.statistics.edges[feature.column])
        return ids_of(tokens_of(feature, rows), self._lookup(feature))

    def _list_ids(self, feature: Feature, rows: pa.Table) -> pa.Array:
        tokens, offsets = flat(tokens_of(feature, rows))
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids_of(tokens, self._lookup(feature))))

    def _lookup(self, feature: Feature) -> Callable[[pa.Array], np.ndarray]:
        feature = self._owner(feature)
        if feature.hash:
            return lambda tokens: (hash64(tokens, feature.name) % np.uint64(feature.hash)).astype(np.int32)
        return self.vocabularies[feature.name].lookup

    def _owner(self, feature: Feature) -> Feature:
        """The feature whose ids the field has: itself, or what a sequence is `of`."""
        return next(f for f in self.schema.features if f.name == feature.of) if feature.of else feature


def load_encoder(root: str, manifest: Manifest) -> Encoder:
    """The encoder of a prepared dataset."""
    return make_encoder(root, from_dict(Schema, manifest.source["schema"]), from_dict(Statistics, manifest.source["statistics"]))


def make_encoder(root: str, schema: Schema, statistics: Statistics) -> Encoder:
    return Encoder(schema, statistics, {f.name: read_vocabulary(root, f.name) for f in schema.features if f.vocabulary})
