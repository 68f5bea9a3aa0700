"""`prepare` without Ray, for tests that call it a thousand times, and what has to hold of a folder it wrote."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ray import cloudpickle

from sml_dist.data import fit, survey, write
from sml_dist.data.dataset import MANIFEST, Manifest, read_manifest, read_rows, row_groups


def map_tasks(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """As parallel.map_tasks, in this process; what goes to a task and comes back is pickled all the same."""
    for index, task in enumerate(tasks):
        work, argument = cloudpickle.loads(cloudpickle.dumps((function, task)))
        yield index, cloudpickle.loads(cloudpickle.dumps(work(argument)))


def without_ray(patch: Any) -> None:
    for module in (survey, fit, write):
        patch.setattr(module, "map_tasks", map_tasks)


def contents(root: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_dataset(root: Path, manifest: Manifest) -> None:
    """The folder holds what the manifest says and no other file; read = kept + rejected, in the counts and in the rows."""
    assert read_manifest(str(root)) == manifest
    files = [file for split in manifest.splits.values() for file in split.files]
    assert set(contents(root)) == {MANIFEST, *(f.path for f in files + manifest.rejects), *manifest.source["vocabularies"].values()}
    for file in files + manifest.rejects:
        data = (root / file.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    kept = 0
    for split in manifest.splits.values():
        for path, group, rows in row_groups(split):
            table = read_rows(str(root), path, group)
            assert table.num_rows == rows
            check_features(table, manifest)
            kept += rows
    rejects = pa.concat_tables([pq.read_table(root / file.path) for file in manifest.rejects]).to_pylist() if manifest.rejects else []
    assert len({(reject["file"], reject["row"]) for reject in rejects}) == len(rejects) == manifest.rows_rejected
    assert manifest.rows_kept == kept and manifest.rows_read == kept + len(rejects)


def check_features(table: pa.Table, manifest: Manifest) -> None:
    """Labels are 0 or 1, numbers finite, ids inside their tables."""
    assert set(table["label"].to_pylist()) <= {0.0, 1.0}
    if manifest.dense:
        assert np.isfinite(table["dense"].combine_chunks().flatten().to_numpy()).all()
    if manifest.single:
        ids = table["ids"].combine_chunks().flatten().to_numpy().reshape(-1, len(manifest.single))
        assert (ids >= 0).all() and (ids < [field.rows for field in manifest.single]).all()
    for field in manifest.multi:
        values = table[f"ids:{field.name}"].combine_chunks().flatten().to_numpy()
        assert ((values >= 0) & (values < field.rows)).all()


def check_line(error: Exception, *names: str) -> None:
    """One line that holds one of the names."""
    line = str(error)
    assert len(line.splitlines()) == 1 and any(name in line for name in names), line
