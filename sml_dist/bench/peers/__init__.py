"""Published packages, run as they are in an environment of their own: SML_BENCH_PEERS names its Python.

It wants torch, fuxictr==2.3.10 and deepctr-torch==0.3.0. The scripts beside this file are run by that Python and import
nothing of sml_dist; each trains on the same rows in its package's own way and prints {"samples_per_second": ...}.
"""

import json
import os
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from joblib import cpu_count

from sml_dist.bench.case import Arm
from sml_dist.bench.workplace import Workplace
from sml_dist.data.dataset import Manifest, matrix, read_manifest, read_rows, row_groups
from sml_dist.spec import InputError, RunError

PYTHON = "SML_BENCH_PEERS"
SCRIPTS = {"fuxictr": "fuxictr_train.py", "deepctr": "deepctr_train.py"}
STEPS = 40
FILE_GROUPS = 8  # row groups in one file


def peer_arms(place: Workplace, data: str, model: str) -> dict[str, Arm]:
    """An arm for each package; none where no environment is named."""
    python = os.environ.get(PYTHON)
    if not python:
        return {}
    if not Path(python).is_file():
        raise InputError(f"{PYTHON}={python} is not a file; name the Python of an environment with fuxictr and deepctr-torch")
    flat = flattened(place, data)
    return {name: partial(trained, python, script, flat, model) for name, script in SCRIPTS.items()}


def trained(python: str, script: str, data: Path, model: str) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, str(Path(__file__).parent / script), str(data), model, str(STEPS), str(cpu_count())]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=data)
    if found.returncode:
        raise RunError(f"{script} failed: {found.stderr.strip().splitlines()[-1:]}")
    return json.loads(found.stdout.strip().splitlines()[-1])["samples_per_second"]


def flattened(place: Workplace, data: str) -> Path:
    """The training rows with one column for each field, as these packages read them; made once."""
    manifest = read_manifest(data)
    folder = place.folder / "peers" / Path(data).name
    if not (folder / "sizes.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.parquet"):
            old.unlink()
        groups = list(row_groups(manifest.splits["train"]))
        for number in range(0, len(groups), FILE_GROUPS):
            parts = [columns(read_rows(data, path, group), manifest) for path, group, _ in groups[number : number + FILE_GROUPS]]
            pq.write_table(pa.concat_tables(parts), folder / f"part-{number:05d}.parquet")
        (folder / "sizes.json").write_text(json.dumps({field.name: field.rows for field in manifest.fields}))
    return folder


def columns(table: pa.Table, manifest: Manifest) -> pa.Table:
    ids, dense = matrix(table["ids"]), matrix(table["dense"])
    found = {field.name: ids[:, i].astype(np.int64) for i, field in enumerate(manifest.single)}
    return pa.table(found | {name: dense[:, i] for i, name in enumerate(manifest.dense)} | {"label": table["label"]})
