"""Laws of `prepare --extend`: a dataset that goes on from an earlier one."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sml_dist.data.dataset import Manifest
from sml_dist.data.prepare import prepare
from sml_dist.data.synthetic import synth
from sml_dist.spec import InputError
from tests.data.raw_logs import SCHEMA, clicks, rows_of, write_logs, write_schema
from tests.faults.serial import check_dataset, without_ray


@pytest.fixture(autouse=True)
def serial(monkeypatch):
    without_ray(monkeypatch)


def day(folder: Path, number: int, extend: str | None = None, schema: str = SCHEMA) -> Manifest:
    """Each day has users that no other day has, and is a year older."""
    table = clicks(300, seed=number)
    users = pa.array([f"u{user + 20 * number}" for user in table["user"].to_pylist()])
    table = table.set_column(4, "user", users).set_column(2, "age", pa.array([age + number for age in table["age"].to_pylist()]))
    logs = write_logs(folder / f"day{number}.csv", table)
    output = folder / f"out{number}"
    manifest = prepare(write_schema(folder, schema), str(output), inputs=logs, split="order:0.9,0.1", extend=extend)
    check_dataset(output, manifest)
    return manifest


def vocabulary(root: Path, manifest: Manifest, name: str) -> dict[str, int]:
    table = pq.read_table(root / manifest.source["vocabularies"][name])
    return dict(zip(table["token"].to_pylist(), table["count"].to_pylist(), strict=True))


def test_values_keep_their_ids_and_new_ones_follow_by_their_own_counts(tmp_path):
    first, second = day(tmp_path, 1), day(tmp_path, 2, extend=str(tmp_path / "out1"))
    alone = prepare(write_schema(tmp_path), str(tmp_path / "alone"), inputs=str(tmp_path / "day2.csv"), split="order:0.9,0.1")
    for name in first.source["vocabularies"]:
        was, now, own = (
            vocabulary(tmp_path / root, manifest, name) for root, manifest in (("out1", first), ("out2", second), ("alone", alone))
        )
        assert list(now)[: len(was)] == list(was)
        assert list(now)[len(was) :] == [value for value in own if value not in was]
        assert now == {value: was.get(value, 0) + own.get(value, 0) for value in now}
        assert {f.name: f.rows for f in second.fields}[name] == len(now) + 1
    gone = vocabulary(tmp_path / "out1", first, "user").keys() - vocabulary(tmp_path / "alone", alone, "user").keys()
    assert gone and {f.name: f.rows for f in second.fields}["user"] > {f.name: f.rows for f in alone.fields}["user"]


def test_numbers_keep_their_scale_and_the_same_rows_the_same_features(tmp_path):
    first = day(tmp_path, 1)
    second = day(tmp_path, 2, extend=str(tmp_path / "out1"))
    assert second.source["statistics"] == first.source["statistics"]
    assert second.source["extends"] == str(tmp_path / "out1") and "extends" not in first.source
    schema, logs, output = write_schema(tmp_path), str(tmp_path / "day1.csv"), tmp_path / "again"
    again = prepare(schema, str(output), inputs=logs, split="order:0.9,0.1", extend=str(tmp_path / "out1"))
    assert rows_of(output, again, "train") == rows_of(tmp_path / "out1", first, "train")


def test_what_the_schema_asks_for_otherwise_or_anew_is_fitted_to_the_new_rows(tmp_path):
    first = day(tmp_path, 1)
    schema = SCHEMA.replace("buckets: 4", "buckets: 3").replace("columns: price, transform: log1p", "columns: price, transform: standard")
    second = day(tmp_path, 2, extend=str(tmp_path / "out1"), schema=schema)
    was, now = first.source["statistics"], second.source["statistics"]
    assert now["moments"]["age"] == was["moments"]["age"] and "price" in now["moments"]
    assert len(now["edges"]["age"]) == 2 and now["edges"] != was["edges"]


def test_it_goes_on_from_the_dataset_that_a_run_keeps(tmp_path):
    first = day(tmp_path, 1)
    kept = tmp_path / "run" / "dataset"
    kept.mkdir(parents=True)
    shutil.copy(tmp_path / "out1" / "dataset.json", kept)
    shutil.copytree(tmp_path / "out1" / "vocab", kept / "vocab")
    shutil.rmtree(tmp_path / "out1")
    second = day(tmp_path, 2, extend=str(tmp_path / "run"))
    assert list(vocabulary(tmp_path / "out2", second, "user"))[:3] == list(vocabulary(kept.parent / "dataset", first, "user"))[:3]


def test_what_it_cannot_go_on_from_is_one_line(tmp_path):
    first = day(tmp_path, 1)
    with pytest.raises(InputError, match="nothing is not a prepared dataset"):
        day(tmp_path, 2, extend=str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="nosuch://x: .*nosuch"):
        day(tmp_path, 2, extend="nosuch://x")
    synth(2_000, str(tmp_path / "synth"), fields=2, dense=1, table_rows=50)
    with pytest.raises(InputError, match="a synthetic dataset has no vocabularies"):
        day(tmp_path, 2, extend=str(tmp_path / "synth"))
    with pytest.raises(InputError, match="is --output itself"):
        prepare(
            write_schema(tmp_path), str(tmp_path / "out1"), inputs=str(tmp_path / "day1.csv"), split="order:0.9,0.1",
            extend=str(tmp_path / "out1"), overwrite=True,
        )  # fmt: skip
    (tmp_path / "out1" / first.source["vocabularies"]["user"]).unlink()
    with pytest.raises(InputError, match="--extend: .*user.parquet cannot be read"):
        day(tmp_path, 2, extend=str(tmp_path / "out1"))
