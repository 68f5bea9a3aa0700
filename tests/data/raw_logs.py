"""Small raw click logs for tests of prepare, and the rows of what it made of them."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sml_dist.data.dataset import Manifest, read_rows, row_groups

SCHEMA = """
name: clicks
format: {format}
label: click
numeric:
  - {{columns: price, transform: log1p}}
  - {{columns: age, transform: standard}}
  - {{columns: price, transform: log_square}}
  - {{columns: age, transform: bucket, buckets: 4}}
categorical:
  - {{columns: [site, user], min_count: 2}}
  - {{columns: device, hash: 50}}
multivalued:
  - {{columns: tags, separator: "|", min_count: 1}}
timestamp: {{column: time, fields: [hour, weekday]}}
group: user
weight: w
"""


def write_schema(folder: Path, text: str = SCHEMA, **values: str) -> str:
    path = folder / "schema.yaml"
    path.write_text(text.format(**{"format": "csv", **values}))
    return str(path)


def clicks(rows: int, seed: int = 0) -> pa.Table:
    """Random rows with missing values, ties and rare tokens; `time` increases, with repeats."""
    draw = np.random.default_rng(seed)
    missing = draw.random(rows) < 0.1
    tags = [["", "a", "a|b", "b|c|d"][i] for i in draw.integers(0, 4, rows)]
    return pa.table(
        {
            "click": draw.integers(0, 2, rows),
            "price": pa.array(draw.integers(0, 1000, rows), mask=missing),
            "age": draw.integers(18, 60, rows),
            "site": [f"s{i}" for i in draw.zipf(1.5, rows) % 50],
            "user": draw.integers(0, 40, rows),
            "device": [f"d{i}" for i in draw.integers(0, 300, rows)],
            "tags": tags,
            "time": 1_600_000_000 + np.arange(rows) // 3 * 7200,
            "w": draw.integers(1, 4, rows),
        }
    )


def to_text(table: pa.Table, delimiter: str = ",", header: bool = True) -> str:
    lines = [delimiter.join(table.column_names)] if header else []
    lines += [delimiter.join("" if value is None else str(value) for value in row.values()) for row in table.to_pylist()]
    return "\n".join(lines) + "\n"


def write_logs(path: Path, table: pa.Table) -> str:
    """CSV (plain, .gz, .zst) or Parquet, by the name of the file."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=100)
        return str(path)
    data = to_text(table).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return str(path)


def rows_of(root: Path, manifest: Manifest, split: str) -> list[dict[str, Any]]:
    """Every row of a split, in order."""
    groups = [read_rows(str(root), path, group) for path, group, _ in row_groups(manifest.splits[split])]
    return pa.concat_tables(groups).to_pylist()


def as_set(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a sorted list of texts: equal for equal multisets of rows."""
    return sorted(map(repr, rows))


def rejects_of(root: Path, manifest: Manifest) -> list[dict[str, Any]]:
    return [row for file in manifest.rejects for row in pq.read_table(root / file.path).to_pylist()]


def write_with_flipped_bit(path: Path) -> None:
    """Clicks as Parquet with page checksums, and one bit of a page flipped."""
    pq.write_table(clicks(2000), path, write_page_checksum=True, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
