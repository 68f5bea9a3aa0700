"""What has changed from one export to the next: rows of tables, new values of vocabularies, and files that are not tables.

    delta.json          version it is for, version it leads to, counts, SHA-256 of the files below
    target.json         the manifest that the next export has
    tables/FIELD.safetensors
        at              the rows that are written, and their numbers under the names that tables.py gives them
        order           where a vocabulary changed: for each row the old row that had its value, or -1
        tombstones      old rows whose values are gone
    vocab/FIELD.parquet values that are new, in order
    files/              all else that changed, whole

Applying deltas in the order in which they were made gives, byte for byte, the export that the last one was made from: the result
is held against its manifest, and there is none if one byte differs.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import safetensors.torch
import torch
from torch import Tensor

from sml_dist.scoring.trained import find, load
from sml_dist.serve.export import about, write
from sml_dist.serve.features import FieldSpec, Quantize, read_features, write_vocabulary
from sml_dist.serve.layout import CARD, MANIFEST, copy, read_manifest, sha256, verify, version_of, whole, write_json
from sml_dist.serve.tables import read_table, stem, write_shards, write_tensors
from sml_dist.spec import InputError, confined

DELTA, TARGET, FILES = "delta.json", "target.json", "files"
ORDER, AT, TOMBSTONES = "order", "at", "tombstones"


def export_since(
    run: str, since: str, output: str, *, step: int | None, quantize: Quantize | None, onnx: bool, licences: dict[str, str]
) -> dict[str, Any]:
    """Writes the delta from the export `since` to what a run's export would be now. Raises InputError.

    What `quantize` and `licences` leave open is as in that export.
    """
    verify(since)
    known = read_features(since)
    if quantize not in (None, known.quantize):
        raise InputError(f"{since} has --quantize {known.quantize}, so what changed since cannot be {quantize}; export it whole")
    licences = json.loads((Path(since) / CARD).read_text())["licences"] | {of: said for of, said in licences.items() if said}
    model = load(find(run, step), precision="fp32")
    with whole(output) as folder, tempfile.TemporaryDirectory(dir=folder.parent, prefix=".full-") as full:
        write(model, Path(full), known.quantize, onnx, licences)
        return difference(Path(since), Path(full), folder) | {"export": output}


def difference(old: Path, new: Path, folder: Path) -> dict[str, Any]:
    """Writes the delta between two exports into an empty folder; what is in it."""
    before, after = (read_features(export) for export in (old, new))
    was, now = (read_manifest(export)["files"] for export in (old, new))
    fields = {field.name: field for field in before.fields}
    counts, ours = {}, set()
    for field in (field for field in after.fields if field.of == field.name):
        paths = field_paths(field)
        ours |= set(paths)
        if any(was.get(path) != now[path] for path in paths):
            counts[field.name] = write_field(old, new, fields.get(field.name), field, folder)
    for path in sorted(now.keys() - ours):
        if was.get(path) != now[path]:
            copy(new / path, folder / FILES / path)
    copy(new / MANIFEST, folder / TARGET)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    said = {"base": version_of(old), "version": version_of(new), "tables": counts}
    write_json(folder / DELTA, said | {"files": {name: sha256(path) for name, path in files.items()}})
    return said | {"files": len(files) + 1, "bytes": sum(path.stat().st_size for path in files.values())}


def field_paths(field: FieldSpec) -> list[str]:
    """The files of a field: its vocabulary and its table."""
    return [*filter(None, [field.vocabulary]), *(shard.path for shard in field.shards)]


def write_field(old: Path, new: Path, before: FieldSpec | None, field: FieldSpec, folder: Path) -> dict[str, int]:
    """A field's part of a delta; how many rows are changed, how many are gone."""
    rows = read_table(new, field.shards)
    base = read_table(old, before.shards) if before else {name: part[:0] for name, part in rows.items()}
    source, reordered = same_values(old, new, before, field)
    taken = source.clamp(min=0)
    same = source >= 0
    for name, part in rows.items():
        if len(base[name]) and base[name].shape[1:] == part.shape[1:]:
            same &= (bits(base[name])[taken] == bits(part)).flatten(1).all(1)
        else:
            same &= False
    at = (~same).nonzero()[:, 0]
    gone = torch.ones(len(next(iter(base.values()))), dtype=torch.bool)
    gone[source[source >= 0]] = False
    parts = {AT: at, TOMBSTONES: gone.nonzero()[:, 0]} | {name: part[at].contiguous() for name, part in rows.items()}
    if reordered:
        parts[ORDER] = source
        added = tokens(new, field).filter(pa.array((source[1:] < 0).numpy()))
        write_vocabulary(made(folder / field.vocabulary), added)
    write_tensors(parts, made(folder / table_path(field)))
    return {"rows": len(same), "changed": len(at), "tombstones": int(gone.sum())}


def bits(part: Tensor) -> Tensor:
    """As bytes: -0.0 is not 0.0 here."""
    return part.contiguous().view(torch.uint8).view(len(part), -1)


def same_values(old: Path, new: Path, before: FieldSpec | None, field: FieldSpec) -> tuple[Tensor, bool]:
    """(for each row the old row of the same value, or -1; whether that is another order than before)."""
    count = before.rows if before else 0
    plain = torch.arange(field.rows)
    plain[count:] = -1
    if not field.vocabulary:
        return plain, False
    was, now = (tokens(old, before) if before and before.vocabulary else pa.array([], pa.large_string())), tokens(new, field)
    if was.equals(now):
        return plain, False
    places = pc.fill_null(pc.index_in(now, was), -2).to_numpy().astype(np.int64) + 1
    return torch.cat([torch.tensor([0 if count else -1]), torch.from_numpy(places)]), True


def tokens(folder: Path, field: FieldSpec) -> pa.Array:
    return pq.read_table(folder / field.vocabulary)["token"].combine_chunks()


def table_path(field: FieldSpec) -> str:
    return f"tables/{stem(field.name)}.safetensors"


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def apply(base: str, deltas: list[str], output: str) -> dict[str, Any]:
    """Writes the export that the deltas lead to, whole or not at all. Raises InputError."""
    verify(base)
    with whole(output) as folder, tempfile.TemporaryDirectory(dir=folder.parent, prefix=".steps-") as steps:
        export = Path(base)
        for number, delta in enumerate(deltas):
            target = folder if number == len(deltas) - 1 else Path(steps) / str(number)
            target.mkdir(exist_ok=True)
            apply_one(export, Path(delta), target)
            export = target
    return about(output)


def apply_one(export: Path, delta: Path, folder: Path) -> None:
    said = read_delta(delta)
    if said["base"] != version_of(export):
        raise InputError(f"{delta} is for version {said['base']}, not {version_of(export)}; apply deltas in the order they were made")
    target = read_manifest(delta, TARGET)["files"]
    was = read_manifest(export)["files"]
    for path, known in target.items():
        if was.get(path) == known:
            copy(export / path, folder / path)
        elif (delta / FILES / path).is_file():
            copy(delta / FILES / path, folder / path)
    rebuild(export, delta, folder, said["tables"])
    copy(delta / TARGET, folder / MANIFEST)
    verify(folder)


def rebuild(export: Path, delta: Path, folder: Path, changed: dict[str, Any]) -> None:
    """The changed fields' vocabularies and tables."""
    fields = {field.name: field for field in read_features(export).fields}
    for field in read_features(folder).fields:
        if field.name in changed:
            before = fields.get(field.name)
            parts = safetensors.torch.load_file(delta / table_path(field))
            order, at = parts.pop(ORDER, None), parts.pop(AT)
            parts.pop(TOMBSTONES)
            base = read_table(export, before.shards) if before else {name: part[:0] for name, part in parts.items()}
            source = torch.arange(field.rows) if order is None else order
            write_shards(folder, field.shards, {name: written(base[name], part, source, at) for name, part in parts.items()})
            if field.vocabulary:
                write_vocabulary(made(folder / field.vocabulary), new_tokens(export, delta, before, field, order))


def written(base: Tensor, part: Tensor, source: Tensor, at: Tensor) -> Tensor:
    """A table's numbers: the old rows in their new order, and over them what the delta writes."""
    rows = part.new_empty((len(source), *part.shape[1:]))
    kept = torch.ones(len(source), dtype=torch.bool)
    kept[at] = False
    if kept.any():  # a table of another width keeps none
        rows[kept] = base[source[kept]]
    rows[at] = part
    return rows


def new_tokens(export: Path, delta: Path, before: FieldSpec | None, field: FieldSpec, order: Tensor | None) -> pa.Array:
    """A field's values in their order: old ones, and where there was none the next of those that the delta adds."""
    was = tokens(export, before) if before and before.vocabulary else pa.array([], pa.large_string())
    if order is None:
        return was
    added = tokens(delta, field)
    source = order[1:].numpy()
    places = np.where(source < 0, len(was) + np.cumsum(source < 0) - 1, source - 1)
    return pa.concat_arrays([was, added]).take(pa.array(places))


def read_delta(folder: Path) -> dict[str, Any]:
    """What a delta says of itself, its files' hashes checked. Raises InputError."""
    try:
        said = json.loads((folder / DELTA).read_text())
        said = {key: said[key] for key in ("base", "version", "tables", "files")}
        damaged = [name for name, digest in said["files"].items() if sha256(folder / confined(name)) != digest]
    except OSError as error:
        raise InputError(f"{folder} is no delta ({error.strerror}: {error.filename}); make one with `sml-dist export --since`") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{folder / DELTA} is damaged; make the delta again") from None
    if damaged:
        raise InputError(f"{folder / damaged[0]} is damaged (its SHA-256 is not the delta's); make the delta again")
    return said
