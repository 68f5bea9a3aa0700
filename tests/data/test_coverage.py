"""What a sample of the validation rows says of a field's ids."""

import pytest

from sml_dist.data.coverage import coverage
from sml_dist.data.dataset import read_manifest
from sml_dist.data.prepare import prepare
from sml_dist.data.synthetic import synth
from tests.data.raw_logs import clicks, rows_of, write_logs, write_schema


def test_the_share_of_unknown_ids_is_that_of_row_0_and_none_for_hashed_fields(ray_local, tmp_path):
    root = str(tmp_path / "out")
    manifest = prepare(write_schema(tmp_path), root, inputs=str(write_logs(tmp_path / "a.csv", clicks(500))), split="order:0.6,0.2,0.2")
    rows = rows_of(root, manifest, "valid")
    found = {field["field"]: field for field in coverage(root, manifest, "valid")}
    assert list(found) == [field.name for field in (*manifest.single, *manifest.multi)]
    for i, field in enumerate(manifest.single):
        ids = [row["ids"][i] for row in rows]
        assert found[field.name]["ids"] == len(rows) and found[field.name]["distinct"] == len(set(ids))
        if found[field.name]["unknown_share"] is not None:
            assert found[field.name]["unknown_share"] == pytest.approx(ids.count(0) / len(ids))
    shares = {name: field["unknown_share"] for name, field in found.items()}
    assert shares["device"] is None and None not in (shares["site"], shares["user"], shares["tags"]) and shares["site"] > 0
    tags = [i for row in rows for i in row["ids:tags"]]
    assert found["tags"]["ids"] == len(tags) and found["tags"]["unknown_share"] == pytest.approx(tags.count(0) / len(tags))


def test_synthetic_fields_have_no_unknown_ids(tmp_path):
    synth(3_000, str(tmp_path / "d"), fields=3, dense=1, table_rows=20)
    found = coverage(str(tmp_path / "d"), read_manifest(str(tmp_path / "d")), "valid")
    assert [field["unknown_share"] for field in found] == [None] * 3
    assert all(0 < field["distinct"] <= field["rows"] for field in found)
