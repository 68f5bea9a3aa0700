"""Deltas applied in order are the full export, byte for byte."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from sml_dist.data.prepare import prepare
from sml_dist.serve.delta import apply, apply_one, difference, export_since, read_delta, tokens
from sml_dist.serve.export import export
from sml_dist.serve.features import FieldSpec, read_features, write_vocabulary
from sml_dist.serve.layout import MANIFEST, seal, version_of
from sml_dist.serve.tables import read_table, write_shards
from sml_dist.spec import InputError, to_dict
from tests.data.raw_logs import SCHEMA, clicks, write_logs, write_schema
from tests.faults.serial import without_ray
from tests.scoring.runs import config, train


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory) -> list[str]:
    """Three runs one after another: of a few steps, of more of them, and on later logs with other values, fewer and more."""
    folder = tmp_path_factory.mktemp("runs")
    more = config(trained.data, folder, "more", model=to_dict(trained.config.model))
    train(more, steps=9)
    later = clicks(1500, seed=1)
    sites = pa.array([site if site != "s3" else f"new{i % 5}" for i, site in enumerate(later["site"].to_pylist())])
    logs = write_logs(folder / "later.csv", later.set_column(later.column_names.index("site"), "site", sites))
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        prepare(write_schema(folder, SCHEMA), str(folder / "data"), inputs=logs, split="order:0.8,0.2")
    other = replace(more, run=replace(more.run, name="other"), data=replace(more.data, path=str(folder / "data")))
    train(other)
    return [trained.run, more.run.folder, other.run.folder]


@pytest.fixture(scope="module", params=["none", "int8"])
def full(runs, request, tmp_path_factory) -> list[Path]:
    """The runs' exports."""
    folder = tmp_path_factory.mktemp("full")
    for number, run in enumerate(runs):
        export(run, str(folder / str(number)), onnx=False, quantize=request.param)
    return [folder / str(number) for number in range(len(runs))]


def test_deltas_applied_in_order_are_the_full_export_byte_for_byte(runs, full, tmp_path):
    said = [
        export_since(run, str(base), str(tmp_path / f"delta-{i}"), step=None, quantize=None, onnx=False, licences={})
        for i, (run, base) in enumerate(zip(runs[1:], full, strict=False))
    ]
    deltas = [str(tmp_path / "delta-0"), str(tmp_path / "delta-1")]
    assert [each["version"] for each in said] == [version_of(folder) for folder in full[1:]]
    apply(str(full[0]), deltas, str(tmp_path / "applied"))
    assert bytes_of(tmp_path / "applied") == bytes_of(full[2])
    apply(str(full[0]), deltas[:1], str(tmp_path / "first"))
    assert bytes_of(tmp_path / "first") == bytes_of(full[1])
    with pytest.raises(InputError, match=f"is for version {version_of(full[1])}, not {version_of(full[0])}; apply deltas in the order"):
        apply(str(full[0]), deltas[::-1], str(tmp_path / "wrong"))
    assert not (tmp_path / "wrong").exists()


def test_a_delta_keeps_the_licences_that_it_is_not_given(runs, tmp_path):
    given = {"model": "MIT", "data": "proprietary"}
    export(runs[0], str(tmp_path / "base"), onnx=False, licences=given)
    for number, licences in enumerate([{"model": "", "data": ""}, {"model": "", "data": "CC0-1.0"}]):
        delta, applied = str(tmp_path / f"delta-{number}"), tmp_path / f"applied-{number}"
        export_since(runs[1], str(tmp_path / "base"), delta, step=None, quantize=None, onnx=False, licences=licences)
        apply(str(tmp_path / "base"), [delta], str(applied))
        expected = given | {"code": "Apache-2.0"} | {of: licence for of, licence in licences.items() if licence}
        assert json.loads((applied / "card.json").read_text())["licences"] == expected


def test_a_delta_has_the_rows_that_changed_and_no_others(full, tmp_path):
    old, new = full[:2]
    (tmp_path / "delta").mkdir()
    said = difference(old, new, tmp_path / "delta")
    changed, rows = {}, {}
    for before, after in zip(read_features(old).fields, read_features(new).fields, strict=True):
        was, now = (read_table(folder, field.shards) for folder, field in ((old, before), (new, after)))
        differs = torch.stack([(was[name] != now[name]).reshape(after.rows, -1).any(1) for name in was]).any(0)
        changed[after.name], rows[after.name] = int(differs.sum()), after.rows
    assert {name: counts["changed"] for name, counts in said["tables"].items()} == {name: n for name, n in changed.items() if n}
    assert any(0 < changed[name] < rows[name] for name in rows)  # rows that no batch held
    assert all(counts["tombstones"] == 0 for counts in said["tables"].values())


def test_values_that_are_gone_are_tombstones_and_new_ones_come_with_their_value(full, tmp_path):
    (tmp_path / "delta").mkdir()
    said = difference(full[0], full[2], tmp_path / "delta")
    old = pq.read_table(full[0] / "vocab/site.parquet")["token"].to_pylist()
    added = pq.read_table(tmp_path / "delta/vocab/site.parquet")["token"].to_pylist()
    gone = [old[row - 1] for row in safetensors.torch.load_file(tmp_path / "delta/tables/site.safetensors")["tombstones"].tolist()]
    assert "s3" in gone and {"new0", "new1"} <= set(added) and not set(added) & set(old)
    assert said["tables"]["site"]["tombstones"] == len(gone)


def test_rows_that_a_vocabulary_only_moved_are_not_sent(exported, tmp_path):
    """Of two exports that differ in the order of one vocabulary and its rows the delta has an order and no numbers."""
    moved, field = unsealed(exported, tmp_path), site(exported)
    order = np.random.default_rng(0).permutation(field.rows - 1)
    write_vocabulary(moved / field.vocabulary, tokens(exported, field).take(pa.array(order)))
    rows = read_table(exported, field.shards)["fp32"]
    write_shards(moved, field.shards, {"fp32": torch.cat([rows[:1], rows[1:][torch.from_numpy(order)]])})
    assert there_and_back(exported, moved, tmp_path) == {"site": {"rows": field.rows, "changed": 0, "tombstones": 0}}


def test_a_table_of_another_width_is_sent_whole(exported, tmp_path):
    wide, field = unsealed(exported, tmp_path), site(exported)
    write_shards(wide, field.shards, {"fp32": read_table(exported, field.shards)["fp32"].repeat(1, 2)})
    assert there_and_back(exported, wide, tmp_path) == {"site": {"rows": field.rows, "changed": field.rows, "tombstones": 0}}


def unsealed(export: Path, folder: Path) -> Path:
    """A copy of an export without its manifest."""
    return Path(shutil.copytree(export, folder / "new", ignore=shutil.ignore_patterns(MANIFEST)))


def site(export: Path) -> FieldSpec:
    return next(field for field in read_features(export).fields if field.name == "site")


def there_and_back(old: Path, new: Path, folder: Path) -> dict[str, dict[str, int]]:
    """What a delta says of its tables; applied, it gives the new export."""
    seal(new)
    (folder / "delta").mkdir()
    (folder / "applied").mkdir()
    said = difference(old, new, folder / "delta")
    apply_one(old, folder / "delta", folder / "applied")
    assert bytes_of(folder / "applied") == bytes_of(new)
    return said["tables"]


def test_damage_to_a_delta_and_another_quantisation_are_refused(runs, full, tmp_path):
    with pytest.raises(InputError, match="has --quantize (none|int8), so what changed since cannot be int4; export it whole"):
        export_since(runs[1], str(full[0]), str(tmp_path / "x"), step=None, quantize="int4", onnx=False, licences={})
    (tmp_path / "delta").mkdir()
    difference(full[0], full[1], tmp_path / "delta")
    path = next((tmp_path / "delta/tables").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{path.name} is damaged .* make the delta again"):
        apply(str(full[0]), [str(tmp_path / "delta")], str(tmp_path / "new"))
    said = tmp_path / "delta/delta.json"
    said.write_text(json.dumps({key: value for key, value in json.loads(said.read_text()).items() if key != "base"}))
    with pytest.raises(InputError, match="delta.json is damaged; make the delta again"):
        apply(str(full[0]), [str(tmp_path / "delta")], str(tmp_path / "new"))
    with pytest.raises(InputError, match="is no delta"):
        read_delta(tmp_path)
    assert not (tmp_path / "new").exists()
