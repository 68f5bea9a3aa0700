"""Laws of prepare as a whole, on Ray: every row once, the same rows at any cut and from any format, nothing learnt beyond train.

What holds where tasks or the driver are killed is in tests/faults/test_prepare.py.
"""

import contextlib
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sml_dist.data import output as output_module
from sml_dist.data import prepare as prepare_module
from sml_dist.data.clean import clean
from sml_dist.data.dataset import MANIFEST, read_manifest
from sml_dist.data.encode import load_encoder
from sml_dist.data.output import INCOMPLETE
from sml_dist.data.prepare import prepare
from sml_dist.data.sources import first_spans, read
from sml_dist.data.spans import list_files
from sml_dist.spec import InputError
from tests.data.raw_logs import as_set, clicks, rejects_of, rows_of, write_logs, write_schema, write_with_flipped_bit

pytestmark = pytest.mark.usefixtures("ray_local")

SPLITS = ("train", "valid", "test")


def prepared(root, schema, inputs, **options):
    manifest = prepare(schema, str(root), inputs=str(inputs), **({"split": "order:0.6,0.2,0.2"} | options))
    assert read_manifest(str(root)) == manifest
    assert manifest.rows_read == manifest.rows_kept + manifest.rows_rejected
    assert manifest.rows_kept == sum(split.rows for split in manifest.splits.values())
    return manifest, {name: rows_of(root, manifest, name) for name in manifest.splits}


def test_every_row_comes_out_once_and_as_the_manifest_says(tmp_path):
    table = clicks(500)
    manifest, rows = prepared(tmp_path / "out", write_schema(tmp_path), write_logs(tmp_path / "a.csv", table))
    assert [len(rows[name]) for name in SPLITS] == [300, 100, 100]
    everything = [row for name in SPLITS for row in rows[name]]
    assert [row["label"] for row in everything] == table["click"].to_pylist()
    assert [row["timestamp"] for row in everything] == table["time"].to_pylist()
    assert [row["group"] for row in everything] == table["user"].to_pylist()
    for name in SPLITS:
        assert manifest.splits[name].positives == sum(row["label"] for row in rows[name])
        for row in rows[name]:
            assert all(0 <= i < field.rows for i, field in zip(row["ids"], manifest.single, strict=True))
            assert all(0 <= i < manifest.multi[0].rows for i in row["ids:tags"])
    assert not (tmp_path / "out" / INCOMPLETE).exists() and not (tmp_path / "out" / ".work").exists()


def test_plain_gzip_zstd_and_parquet_give_the_same_dataset(tmp_path):
    table, results = clicks(400), []
    for name in ("a.csv", "b.csv.gz", "c.csv.zst", "d.parquet"):
        schema = write_schema(tmp_path, format="parquet" if name.endswith("parquet") else "csv")
        results.append(prepared(tmp_path / f"out_{name}", schema, write_logs(tmp_path / name, table)))
    for manifest, rows in results[1:]:
        assert rows == results[0][1]
        assert manifest.fields == results[0][0].fields
        assert {f.path: f.sha256 for s in manifest.splits.values() for f in s.files} == {
            f.path: f.sha256 for s in results[0][0].splits.values() for f in s.files
        }


@pytest.mark.parametrize("split", ["order:0.6,0.2,0.2", "random:0.6,0.2,0.2", "time:0.6,0.2,0.2"])
def test_the_number_of_parts_and_files_does_not_change_the_rows_of_a_split(tmp_path, split):
    table = clicks(300)
    (tmp_path / "logs").mkdir()
    write_logs(tmp_path / "logs" / "a.csv", table.slice(0, 170))
    write_logs(tmp_path / "logs" / "b.csv.gz", table.slice(170))
    schema = write_schema(tmp_path)
    few, few_rows = prepared(tmp_path / "few", schema, tmp_path / "logs", split=split)
    many, many_rows = prepared(tmp_path / "many", schema, tmp_path / "logs", split=split, part_bytes=2000)
    assert len(few.splits["train"].files) == 1 < len(many.splits["train"].files)
    assert few.source == many.source
    for name in SPLITS:
        assert as_set(few_rows[name]) == as_set(many_rows[name])


def test_time_split_puts_earlier_rows_first_and_never_splits_a_second(tmp_path):
    shuffled = clicks(300).take(pa.array([(i * 7) % 300 for i in range(300)]))
    _, rows = prepared(tmp_path / "out", write_schema(tmp_path), write_logs(tmp_path / "a.csv", shuffled), split="time:0.6,0.2,0.2")
    times = [[row["timestamp"] for row in rows[name]] for name in SPLITS]
    assert max(times[0]) < min(times[1]) and max(times[1]) < min(times[2])
    assert [len(part) for part in times] == [180, 60, 60]


def test_random_split_is_the_same_again_and_another_with_another_seed(tmp_path):
    path, schema = write_logs(tmp_path / "a.csv", clicks(300)), write_schema(tmp_path)
    times = [
        [row["timestamp"] for row in prepared(tmp_path / f"out{i}", schema, path, split="random:0.5,0.5", seed=seed)[1]["train"]]
        for i, seed in enumerate((3, 3, 4))
    ]
    assert times[0] == times[1] != times[2]


def test_nothing_is_learnt_from_rows_outside_train(tmp_path):
    schema, table, other = write_schema(tmp_path), clicks(300), clicks(300, seed=9)
    runs = []
    for number, valid in enumerate((table, other)):
        paths = [write_logs(tmp_path / f"{name}{number}.csv", rows) for name, rows in (("train", table), ("valid", valid))]
        manifest = prepare(schema, str(tmp_path / f"out{number}"), train=paths[0], valid=paths[1])
        runs.append((manifest, *(rows_of(tmp_path / f"out{number}", manifest, name) for name in ("train", "valid"))))
    (first, train_a, valid_a), (second, train_b, valid_b) = runs
    assert first.fields == second.fields and first.source == second.source and first.split_rule == "files"
    assert train_a == train_b and valid_a != valid_b
    for path in first.source["vocabularies"].values():
        assert pq.read_table(tmp_path / "out0" / path) == pq.read_table(tmp_path / "out1" / path)


@pytest.mark.parametrize("split", ["order:0.6,0.4", "time:0.6,0.4"])
def test_nothing_is_learnt_from_the_later_rows_of_a_file(tmp_path, split):
    schema, table = write_schema(tmp_path), clicks(300)
    other = clicks(300, seed=9).set_column(7, "time", table["time"])
    paths = [
        write_logs(tmp_path / f"{n}.csv", pa.concat_tables([table.slice(0, 180), rest.slice(180)])) for n, rest in enumerate((table, other))
    ]
    (first, a), (second, b) = (prepared(tmp_path / f"out{n}", schema, path, split=split) for n, path in enumerate(paths))
    assert first.fields == second.fields and first.source == second.source
    assert a["train"] == b["train"] and a["valid"] != b["valid"]


def test_min_count_of_the_command_goes_before_the_schemas(tmp_path):
    path, schema = write_logs(tmp_path / "a.csv", clicks(300)), write_schema(tmp_path)
    rows = [
        {field.name: field.rows for field in prepared(tmp_path / f"out{n}", schema, path, min_count=n)[0].fields} for n in (1, 1_000_000)
    ]
    assert rows[0]["site"] > rows[1]["site"] == 1 == rows[1]["tags"] == rows[1]["price_log_square"]
    assert rows[0]["device"] == rows[1]["device"] == 50
    with pytest.raises(InputError, match="--min-count 0 must be at least 1"):
        prepared(tmp_path / "out", schema, path, min_count=0)


def test_raw_rows_scored_later_get_the_features_they_were_trained_with(tmp_path):
    path = write_logs(tmp_path / "a.csv", clicks(300))
    manifest, rows = prepared(tmp_path / "out", write_schema(tmp_path), path)
    encoder = load_encoder(str(tmp_path / "out"), manifest)
    [span] = first_spans(list_files(path, "--input", encoder.schema), encoder.schema)
    [raw] = read(span, encoder.schema, encoder.schema.inputs)
    again = encoder.encode(clean(raw.table, raw.rows, encoder.schema, labelled=False)[0]).to_pylist()
    features = [{name: row[name] for name in again[0]} for split in SPLITS for row in rows[split]]
    assert again == features


def test_a_complete_dataset_is_kept_unless_overwriting_is_asked_for(tmp_path):
    schema, path, out = write_schema(tmp_path), write_logs(tmp_path / "a.csv", clicks(100)), tmp_path / "out"
    first, _ = prepared(out, schema, path)
    with pytest.raises(InputError, match="already holds a prepared dataset; .* --overwrite"):
        prepared(out, schema, path)
    with pytest.raises(InputError, match="matches no file"):
        prepared(out, schema, tmp_path / "absent", overwrite=True)
    with pytest.raises(InputError, match="the input has 100"):
        prepared(out, schema, path, split="order:5,5", overwrite=True)
    assert read_manifest(str(out)) == first
    assert prepared(out, schema, write_logs(tmp_path / "b.csv", clicks(60)), overwrite=True)[0].rows_read == 60


def test_a_folder_that_is_not_prepares_is_left_alone(tmp_path):
    out = tmp_path / "out"
    (out / "train").mkdir(parents=True)
    (out / "train" / "mine.csv").write_text("x")
    with pytest.raises(InputError, match="holds files that prepare did not write"):
        prepared(out, write_schema(tmp_path), write_logs(tmp_path / "a.csv", clicks(100)), overwrite=True)
    assert (out / "train" / "mine.csv").exists()
    for refused in (lambda path: prepared(path, write_schema(tmp_path), path), lambda path: output_module.check_free(str(path), False)):
        with pytest.raises(InputError, match="is a file; name a folder"):
            refused(tmp_path / "a.csv")


@pytest.mark.parametrize("stage", ["fit", "write", "make_manifest", "complete"])
def test_a_failure_at_any_stage_leaves_no_dataset_and_the_same_call_mends_it(tmp_path, monkeypatch, stage):
    schema, path, out = write_schema(tmp_path), write_logs(tmp_path / "a.csv", clicks(100)), tmp_path / "out"

    def fails(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, stage, fails)
        with pytest.raises(KeyboardInterrupt):
            prepared(out, schema, path)
    assert [file.name for file in out.iterdir()] == [INCOMPLETE]
    with pytest.raises(InputError, match="is not a prepared dataset"):
        read_manifest(str(out))
    prepared(out, schema, path)


@pytest.fixture
def joined(tmp_path, monkeypatch):
    """A call prepares a folder, and does the same again while it is written, with what becomes of the second."""
    schema, path, write = write_schema(tmp_path), write_logs(tmp_path / "a.csv", clicks(100)), prepare_module.write

    def both(out, second):
        def overtaken(*arguments):
            monkeypatch.setattr(prepare_module, "write", write)
            result = write(*arguments)
            with second:
                prepared(out, schema, path)
            return result

        monkeypatch.setattr(prepare_module, "write", overtaken)
        return prepared(out, schema, path)

    return both


def test_a_second_prepare_into_a_folder_is_refused(tmp_path, joined):
    joined(tmp_path / "out", pytest.raises(InputError, match="out is being written by another command"))
    assert read_manifest(str(tmp_path / "out")).rows_read == 100
    assert "lock" not in [file.name for file in (tmp_path / "out").iterdir()]


def test_where_a_file_system_knows_no_locks_two_prepares_never_both_complete_a_folder(tmp_path, joined, monkeypatch):
    monkeypatch.setattr(output_module, "held", lambda folder: contextlib.nullcontext())
    with pytest.raises(InputError, match="another prepare has taken the folder"):
        joined(tmp_path / "out", contextlib.nullcontext())
    assert read_manifest(str(tmp_path / "out")).rows_read == 100


def test_damage_that_only_a_task_finds_is_one_line_and_leaves_no_dataset(tmp_path):
    path = tmp_path / "a.parquet"
    write_with_flipped_bit(path)
    with pytest.raises(InputError, match="a.parquet cannot be read"):
        prepare(write_schema(tmp_path, format="parquet"), str(tmp_path / "out"), inputs=str(path), split="order:0.6,0.4")
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_progress_ends_at_the_whole_of_each_stage(tmp_path):
    seen = {}
    path = write_logs(tmp_path / "a.csv", clicks(300))
    note = lambda stage, done, of: seen.update({stage: (done, of)})  # noqa: E731
    prepared(tmp_path / "out", write_schema(tmp_path), path, part_bytes=2000, show=note)
    assert list(seen) == ["survey", "fit", "vocabularies", "encode"]
    assert all(done == of for done, of in seen.values())


@pytest.mark.parametrize(
    ("name", "rows", "fields"),
    [
        ("criteo", [64_000, 8_000], 26),
        ("avazu", [7_199, 1_800], 23),
        ("ml1m", [390_049, 48_700, 48_766], 7),
        ("frappe", [202_027, 57_722], 10),
    ],
)
def test_the_real_logs_prepare_without_a_reject(real_dataset, name, rows, fields):
    manifest = read_manifest(real_dataset(name))
    assert [split.rows for split in manifest.splits.values()] == rows
    assert manifest.rows_rejected == 0 and len(manifest.fields) == fields


def test_frappe_keeps_every_value(real_dataset):
    fields = read_manifest(real_dataset("frappe")).fields
    assert sum(field.rows for field in fields) == 5_379 + 10  # values in the training file, and a row for the rest in each field


def test_output_may_be_a_url_and_the_folder_may_move(tmp_path):
    path = write_logs(tmp_path / "a.csv", clicks(100))
    manifest = prepare(write_schema(tmp_path), f"file://{tmp_path}/out", inputs=f"file://{path}", split="order:0.5,0.5")
    shutil.move(tmp_path / "out", tmp_path / "moved")
    assert len(rows_of(tmp_path / "moved", manifest, "train")) == 50
    assert str(tmp_path) not in json.dumps(json.loads((tmp_path / "moved" / MANIFEST).read_text()))
    assert load_encoder(str(tmp_path / "moved"), manifest).fields == manifest.fields


def test_a_reject_is_written_with_file_row_column_and_reason(tmp_path):
    path = tmp_path / "a.csv"
    write_logs(path, clicks(100))
    lines = path.read_text().split("\n")
    lines[40] = lines[40].replace(lines[40].split(",")[0], "maybe", 1)
    path.write_text("\n".join(lines))
    manifest, _ = prepared(tmp_path / "out", write_schema(tmp_path), path, max_reject_rate=0.01)
    assert (manifest.rows_read, manifest.rows_kept, manifest.rows_rejected) == (100, 99, 1)
    others = '0 or 1; for other values give the label as {column: click, positive: ["yes"]} or {column: click, at_least: N}'
    assert rejects_of(tmp_path / "out", manifest) == [
        {"file": str(path), "row": 40, "column": "click", "reason": f"'maybe' is not {others}"}
    ]
