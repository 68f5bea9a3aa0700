"""An export: a folder that exists whole or not at all, and whose every byte its manifest answers for.

    manifest.json        SHA-256 and size of every other file; its own SHA-256 is the export's version
    features.json        what becomes of a raw row: fields, ids, hashing, numeric transforms, statistics (features.py)
    vocab/FIELD.parquet  a field's values in the order of their ids, which begin with 1
    tables/FIELD-*       the embedding tables, safetensors of so many rows each (tables.py)
    dense.pt2            torch.export's program: embeddings (B, F, D), dense (B, N) -> logit (B,), contributions (B, L)
    dense.onnx           the same as ONNX
    loader.py            scores raw rows with torch and pyarrow alone (light.py)
    card.json README.md  the model card

Nothing in it depends on when or where it was made: the same checkpoint gives the same bytes.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sml_dist.spec import InputError, confined
from sml_dist.whole_files import to_disk

MANIFEST, FEATURES, CARD = "manifest.json", "features.json", "card.json"
GRAPH, ONNX, LOADER, TABLES = "dense.pt2", "dense.onnx", "loader.py", "tables"
FORMAT = 1
VERSION_DIGITS = 12


def version_of(folder: str | Path) -> str:
    """The export's version. Raises InputError where there is no export."""
    path = Path(folder) / MANIFEST
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:VERSION_DIGITS]
    except OSError:
        raise InputError(f"{folder} is no export (no {MANIFEST}); make one with `sml-dist export RUN --output {folder}`") from None


def read_manifest(folder: str | Path, name: str = MANIFEST) -> dict[str, Any]:
    """What the manifest says. Raises InputError."""
    if name == MANIFEST:
        version_of(folder)
    try:
        manifest = json.loads((Path(folder) / name).read_text())
        if manifest["format"] != FORMAT:
            raise InputError(f"{folder} is an export of format {manifest['format']}, this version reads {FORMAT}; export the run again")
        files = {confined(path): {"sha256": str(of["sha256"]), "bytes": int(of["bytes"])} for path, of in manifest["files"].items()}
        return manifest | {"files": files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{folder}/{name} is damaged; export the run again") from None


def verify(folder: str | Path) -> dict[str, Any]:
    """The manifest, every file's size and SHA-256 checked. Raises InputError that names the first wrong file."""
    manifest = read_manifest(folder)
    for name, known in manifest["files"].items():
        path = Path(folder) / name
        if not path.is_file():
            raise InputError(f"{path} is missing; export the run again")
        if path.stat().st_size != known["bytes"] or sha256(path) != known["sha256"]:
            raise InputError(f"{path} is damaged (its SHA-256 is not the manifest's); export the run again")
    return manifest


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def seal(folder: Path) -> None:
    """Writes the manifest of the files that lie in a folder."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    known = {name: {"sha256": sha256(path), "bytes": path.stat().st_size} for name, path in files.items()}
    write_json(folder / MANIFEST, {"format": FORMAT, "files": known})


@contextlib.contextmanager
def whole(output: str | Path) -> Iterator[Path]:
    """A folder to write into, which is `output` afterwards; after an exception or a kill there is none.

    Raises InputError where `output` exists, or cannot be written.
    """
    target = Path(output).absolute()
    if target.exists():
        raise InputError(f"--output {output} exists already; name a new folder (a service follows a link that you move to it)")
    partial = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
        yield partial
        sync(partial)
        os.rename(partial, target)
        to_disk(target.parent)
    except OSError as error:
        raise InputError(f"--output {output} cannot be written: {error.strerror or error}; make room or name another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sync(folder: Path) -> None:
    """To disk: every file, then every folder."""
    paths = sorted(folder.rglob("*"), key=lambda path: path.is_dir())
    for path in (*paths, folder):
        to_disk(path)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
