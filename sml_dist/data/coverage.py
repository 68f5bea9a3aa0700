"""What a sample of a split's rows looks up in each field's table."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from sml_dist.data.dataset import Manifest, matrix, multi_column, read_rows, row_groups
from sml_dist.data.schema import Schema
from sml_dist.spec import from_dict

GROUPS = 4  # row groups of the sample, evenly spaced over the split: 65,536 rows in 0.1 s at 26 fields


def coverage(root: str, manifest: Manifest, split: str) -> list[dict[str, Any]]:
    """By field: `rows` of the table, `ids` in the sample, `distinct` ones, `unknown_share`.

    `unknown_share` is that of row 0, which the values outside a vocabulary share; None for fields that are hashed, bucketed
    or synthetic, where row 0 is a row like the others.
    """
    groups = list(row_groups(manifest.splits[split]))
    places = np.unique(np.linspace(0, len(groups) - 1, min(GROUPS, len(groups))).astype(int))
    rows = pa.concat_tables([read_rows(root, path, group) for path, group, _ in (groups[i] for i in places)])
    vocabularies = with_vocabulary(manifest)
    found = []
    for name, size, ids in _columns(rows, manifest):
        unknown = _share_of_row_0(ids) if name in vocabularies else None
        found.append({"field": name, "rows": size, "ids": len(ids), "distinct": len(np.unique(ids)), "unknown_share": unknown})
    return found


def _columns(rows: pa.Table, manifest: Manifest) -> Iterator[tuple[str, int, np.ndarray]]:
    """(field, rows of its table, ids of the sample)."""
    single = manifest.single
    if single:
        ids = matrix(rows["ids"])
        yield from ((field.name, field.rows, ids[:, i]) for i, field in enumerate(single))
    for field in manifest.multi:
        yield field.name, field.rows, rows[multi_column(field.name)].combine_chunks().flatten().to_numpy()


def _share_of_row_0(ids: np.ndarray) -> float | None:
    return round(float((ids == 0).mean()), 6) if len(ids) else None


def with_vocabulary(manifest: Manifest) -> set[str]:
    """Fields whose ids are those of a vocabulary."""
    schema = manifest.source.get("schema")
    return {feature.name for feature in from_dict(Schema, schema).features if feature.vocabulary} if schema else set()
