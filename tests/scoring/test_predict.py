"""`predict`: the training forward's scores, from raw logs as from a prepared dataset, each row once whatever is killed."""

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sml_dist import session
from sml_dist.cli import app
from sml_dist.cli.data import show_dataset
from sml_dist.cli.scoring import show_predictions
from sml_dist.data.dataset import DataFile, SplitWriter, read_manifest
from sml_dist.data.files import PARTIAL, write_json
from sml_dist.held import held
from sml_dist.models.zoo import ZOO
from sml_dist.scoring import output
from sml_dist.scoring import predict as module
from sml_dist.scoring.evaluate import evaluate
from sml_dist.scoring.output import MANIFEST, Folder, Predictions
from sml_dist.scoring.predict import predict
from sml_dist.scoring.prepared_rows import PreparedRows, other_than
from sml_dist.spec import InputError, to_dict
from sml_dist.train import build
from tests.data.histories import choosy
from tests.data.raw_logs import clicks, to_text, write_logs
from tests.faults.serial import contents
from tests.models.test_zoo import TOWER, WITH_SML
from tests.models.test_zoo import config as model_config
from tests.scoring.runs import alone_in_process, config, predicted, prepared, train

ROWS = 1500
PARTS = {"part_bytes": 8_000}


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, str]:
    return choosy(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> str:
    """DCN-V2 with batch norm, which a batch of one would show."""
    model = {"name": "dcn_v2", "tower": TOWER | {"norm": "batch"}}
    each = config(data, tmp_path_factory.mktemp("runs"), model=model)
    train(each)
    return each.run.folder


@pytest.fixture(scope="module")
def parquet_run(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("parquet")
    each = config(prepared(folder, form="parquet"), folder)
    train(each)
    return each.run.folder


@pytest.fixture
def serial(monkeypatch):
    alone_in_process(monkeypatch)


def logs_of(data: str) -> str:
    return str(next(Path(data).parent.glob("log*")))


@pytest.fixture(scope="module")
def undisturbed(run, data, tmp_path_factory) -> tuple[dict[str, str], pa.Table]:
    """Every file of the output, and its rows."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with pytest.MonkeyPatch.context() as patch:
        alone_in_process(patch)
        found = predict(run, logs_of(data), str(out), **PARTS)
    assert len(found.files) > 4
    return contents(out), predicted(out, found)


def matrix(table: pa.Table, what: str) -> np.ndarray:
    return np.stack([table[name].to_numpy() for name in table.column_names if name.partition(":")[0] == what], axis=1)


@pytest.mark.parametrize("name", ZOO)
def test_raw_logs_and_the_prepared_dataset_score_as_the_training_forward_and_layers_add_up(data, others, tmp_path, serial, name):
    data = others.get(name, data)
    run = config(data, tmp_path, model=to_dict(model_config(name)))
    logits = np.concatenate([*train(run, ("train", "valid")).values()])
    logits = logits.reshape(len(logits), -1)
    for source in (data, logs_of(data)):
        out = tmp_path / f"out-{Path(source).name}"
        table = predicted(out, predict(run.run.folder, source, str(out), contributions=True))
        np.testing.assert_allclose(matrix(table, "probability"), 1 / (1 + np.exp(-logits)), rtol=0, atol=1e-6)
        np.testing.assert_allclose(matrix(table, "logit"), logits, rtol=1e-5, atol=1e-5)
        layers = matrix(table, "contribution")
        assert (layers.shape[1] > logits.shape[1]) == (name in WITH_SML)
        labels = [column.split(":")[1] for column in table.column_names if column.startswith("contribution:")]
        sums = [layers[:, [label == each for each in labels]].sum(1) for label in read_manifest(data).labels]
        whole = np.stack(sums, axis=1) if logits.shape[1] > 1 else layers.sum(1, keepdims=True)
        np.testing.assert_allclose(whole, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["dnn", "dcn_v2", "finalnet"])
def test_where_all_layers_reach_the_logit_they_leave_a_constant(data, tmp_path, serial, name):
    """A sum of heads, and a mean of two."""
    run = config(data, tmp_path, model=to_dict(model_config(name)))
    train(run)
    table = predicted(tmp_path / "out", predict(run.run.folder, data, str(tmp_path / "out"), splits=["valid"], contributions=True))
    layers = np.ptp(matrix(table, "contribution"), axis=0)  # `rest` is the last
    assert layers[-1] < 1e-5 < layers[:-1].min()


def test_a_row_scores_the_same_alone_and_in_any_batch_from_its_text_on(run, tmp_path, serial):
    table = clicks(ROWS).slice(0, 12)
    (tmp_path / "logs").mkdir()
    for row in range(len(table)):
        (tmp_path / f"logs/{row:02d}.csv").write_text(to_text(table.slice(row, 1)))
    whole = predicted(tmp_path / "whole", predict(run, write_logs(tmp_path / "whole.csv", clicks(ROWS)), str(tmp_path / "whole")))
    alone = predicted(tmp_path / "alone", predict(run, str(tmp_path / "logs/*.csv"), str(tmp_path / "alone")))
    np.testing.assert_allclose(alone["logit"].to_numpy(), whole["logit"].to_numpy()[:12], rtol=0, atol=1e-6)
    assert alone["row"].to_pylist() == [1] * 12 and whole["row"].to_pylist() == [*range(1, ROWS + 1)]


def test_rejects_are_those_of_prepare_and_rows_keep_their_numbers_and_keys(run, tmp_path, serial):
    lines = to_text(clicks(200)).splitlines()
    lines[7], lines[90] = lines[7].replace(",", ";"), lines[90].replace(lines[90].split(",")[2], "old")
    (tmp_path / "logs.csv").write_text("\n".join(lines) + "\n")
    line = r"cannot be used \(age 1, whole row 1\), more than --max-reject-rate 0\.001 allows; the first: .*logs\.csv row 7: "
    with pytest.raises(InputError, match=line):
        predict(run, str(tmp_path / "logs.csv"), str(tmp_path / "out"))
    keys = ["site", "label", "group", "timestamp", "time"]
    found = predict(run, str(tmp_path / "logs.csv"), str(tmp_path / "o"), keys=keys, max_reject_rate=0.05)
    table = predicted(tmp_path / "o", found)
    assert table.column_names == ["file", "row", *keys, "logit", "probability"] == found.columns
    assert (found.rows_read, found.rows_rejected, found.rejected_by) == (200, 2, {"age": 1, "whole row": 1})
    assert table["row"].to_pylist() == [row for row in range(1, 201) if row not in (7, 90)]
    source = csv.read_csv(tmp_path / "logs.csv", parse_options=csv.ParseOptions(invalid_row_handler=lambda row: "skip"))
    source = source.filter(pc.not_equal(source["age"].cast(pa.string()), "old"))
    assert table["site"].to_pylist() == source["site"].to_pylist()
    assert table["label"].to_pylist() == source["click"].to_pylist()
    assert table["group"].to_pylist() == source["user"].to_pylist()
    assert table["timestamp"].to_pylist() == source["time"].to_pylist() == [int(text) for text in table["time"].to_pylist()]


@pytest.mark.parametrize("scored", [predict, evaluate], ids=["predict", "evaluate"])
def test_a_row_whose_logit_is_not_finite_is_named_and_not_written(run, tmp_path, serial, scored):
    lines = to_text(clicks(200)).splitlines()
    for row in (150, 90):
        price, age = lines[row].split(",")[1:3]
        lines[row] = lines[row].replace(f"{price},{age},", f"{price},3e38,")
    (tmp_path / "logs.csv").write_text("\n".join(lines) + "\n")
    logs = str(tmp_path / "logs.csv")
    with pytest.raises(InputError, match=r"logs\.csv row 90: its logit is not finite; a number in it is too large for this model: mend"):
        scored(run, **({"data": logs} if scored is evaluate else {"inputs": logs, "output": str(tmp_path / "out")}))
    assert not (tmp_path / "out").exists()


def test_logs_without_a_label_score_as_with_it(run, tmp_path, serial):
    whole, bare = write_logs(tmp_path / "a.csv", clicks(100)), write_logs(tmp_path / "b.csv", clicks(100).drop(["click", "w"]))
    first, second = (predicted(tmp_path / name, predict(run, path, str(tmp_path / name))) for name, path in (("x", whole), ("y", bare)))
    assert first["logit"].equals(second["logit"])
    assert "label" in first.column_names and "label" not in second.column_names


def test_a_row_with_a_bad_or_no_label_or_weight_is_scored_and_has_null_for_it(run, tmp_path, serial):
    table = clicks(100)
    for place, (name, blank) in enumerate((("click", "maybe"), ("w", "-1"))):
        values = ["", blank, *map(str, table[name].to_pylist()[2:])]
        table = table.set_column(table.column_names.index(name), name, pa.array(values[place:] + values[:place]))
    out, keys = tmp_path / "out", ["label", "weight"]
    found = predicted(out, predict(run, write_logs(tmp_path / "a.csv", table), str(out), keys=keys))
    bare = write_logs(tmp_path / "b.csv", clicks(100).drop(["click", "w"]))
    assert found["logit"].equals(predicted(tmp_path / "bare", predict(run, bare, str(tmp_path / "bare")))["logit"])
    assert found["label"].to_pylist() == [None, None, *map(float, table["click"].to_pylist()[2:])]
    assert found["weight"].to_pylist() == [None, *map(float, table["w"].to_pylist()[1:-1]), None]


def test_a_key_that_the_rows_lack_is_refused_by_the_name_of_its_column(run, tmp_path, serial):
    bare = write_logs(tmp_path / "bare.csv", clicks(100).drop(["click", "user", "w"]))
    for key, line in (
        ("label", "bare.csv has no column 'click', the schema's label; it has price"),
        ("group", "bare.csv has no column 'user', the schema's group; it has price"),
        ("sight", "bare.csv has no column 'sight'; it has price"),
        ("weight", "bare.csv has no column 'w', the schema's weight; it has price"),
    ):
        with pytest.raises(InputError, match=line):
            predict(run, bare, str(tmp_path / "out"), keys=[key])


def test_an_option_that_its_input_has_no_use_for_is_refused(run, data, tmp_path, serial):
    with pytest.raises(InputError, match="--split test,foo: --input .* is raw logs, which have no splits; leave the option out"):
        predict(run, logs_of(data), str(tmp_path / "out"), splits=["test", "foo"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "keys"),
    [([], None), (["--keys", ""], []), (["--keys", "a, b"], ["a", "b"]), (["--keys", "a", "--keys", "b,c"], ["a", "b", "c"])],
)
def test_names_stand_between_commas_or_each_with_an_option_of_its_own(tmp_path, monkeypatch, given, keys):
    taken = {}
    monkeypatch.setattr(session, "ray_session", lambda *_, **__: nullcontext())
    monkeypatch.setattr(module, "predict", lambda *_, **options: taken.update(options) or exit(0))
    given = given + [text.replace("--keys", "--split") for text in given]
    CliRunner().invoke(app, ["predict", "run", "--input", "a.csv", "--output", str(tmp_path / "out"), *given])
    assert taken["keys"] == taken["splits"] == keys


@pytest.mark.parametrize("rejected", [0, 1234])
def test_who_has_rejects_is_told_where_their_reasons_are_and_one_file_is_one(capsys, data, rejected):
    counts = {"rows_rejected": rejected, "rejected_by": {"click": 1, "price": rejected - 1} if rejected else {}}
    manifest = replace(read_manifest(data), **counts)
    show_dataset(manifest, "data/mine", False)
    found = Predictions(
        run="r", checkpoint="c", model="m", precision=None, input="i", columns=[], rows_read=9, rows_scored=7, **counts,
        files=[DataFile(path="p", rows=7, bytes=1, sha256="", row_groups=[7])], job={},
    )  # fmt: skip
    show_predictions(found, "data/mine", False)
    why = " (price 1,233, click 1; data/mine/rejects says why)" if rejected else ""
    shown = capsys.readouterr().out
    assert shown.count(f"rejected {rejected:,}{why}\n") == 2 and "\n1 file in data/mine/predictions: " in shown


@pytest.mark.parametrize("name", ["http://bob:hunter22@host.invalid/log.csv", "memory://bob:hunter22@data"])
def test_a_password_in_the_address_of_rows_is_refused_before_it_is_kept_or_shown(run, tmp_path, name):
    line = "holds a URL with a password; give it through the environment or a mounted file"
    with pytest.raises(InputError, match=f"^--input {line}") as error:
        predict(run, name, str(tmp_path / "out"))
    assert "hunter22" not in str(error.value) and not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=f"^--data {line}"):
        evaluate(run, data=name)
    found = CliRunner().invoke(app, ["evaluate", run, "--data", name])
    assert str(found.exception).startswith(f"--data {line}") and "hunter22" not in found.output + str(found.exception)


def logs_with(folder: Path, *columns: pa.Array) -> str:
    """A Parquet file for each of the columns, which it has as `key`."""
    folder.mkdir()
    for place, column in enumerate(columns):
        write_logs(folder / f"{place}.parquet", clicks(len(column)).append_column("key", column))
    return f"{folder}/*.parquet"


COUNTS = [*range(50)]
KEYS = {
    "integers": (pa.array(COUNTS), pa.array(COUNTS, pa.int32()), pa.int64()),
    "missing": (pa.array(COUNTS), pa.array([None, 0.5] * 25), pa.float64()),
    "all missing": (pa.nulls(50), pa.array(COUNTS, pa.int32()), pa.int32()),
    "large text": (pa.array(["é"] * 50), pa.array(["b"] * 50, pa.large_string()), pa.large_string()),
    "dictionary": (pa.array(["é"] * 50).dictionary_encode(), pa.array(["b"] * 50), pa.string()),
    "pairs": (pa.array([[1, 2], None] * 25, pa.list_(pa.int64(), 2)), pa.array([[3]] * 50), pa.list_(pa.int64())),
    "lacking pairs": (pa.array([[1, None], None] * 25, pa.list_(pa.int64(), 2)), pa.nulls(50), pa.list_(pa.int64())),
}


@pytest.mark.parametrize("part_bytes", [1, 1 << 26], ids=["apart", "together"])
@pytest.mark.parametrize("kind", KEYS)
def test_a_raw_key_has_one_type_in_the_whole_output_and_each_file_s_values(parquet_run, tmp_path, serial, kind, part_bytes):
    first, second, wanted = KEYS[kind]
    found = predict(parquet_run, logs_with(tmp_path / "in", first, second), str(tmp_path / "o"), keys=["key"], part_bytes=part_bytes)
    table = predicted(tmp_path / "o", found)  # it would not join files of two schemas
    assert table["key"].type.equals(wanted) and table["key"].to_pylist() == [*first.to_pylist(), *second.to_pylist()]


def test_a_raw_key_that_no_type_holds_is_refused_before_a_row_is_scored(parquet_run, tmp_path, serial, monkeypatch):
    logs = logs_with(tmp_path / "in", pa.array(COUNTS), pa.array(COUNTS, pa.int32()), pa.array(["a"] * 50))
    monkeypatch.setattr(module, "score_parts", None)
    line = "2.parquet: column 'key' is string, in files before it int64; write it as one type, or leave it out of --keys"
    with pytest.raises(InputError, match=line):
        predict(parquet_run, logs, str(tmp_path / "o"), keys=["key"])


def test_a_key_is_never_rounded(parquet_run, tmp_path, serial):
    logs = logs_with(tmp_path / "in", pa.array([2**53 + 1] * 50), pa.array([0.5] * 50))
    with pytest.raises(InputError, match="0.parquet: column 'key' cannot be double, as other files have it: .* leave it out of --keys"):
        predict(parquet_run, logs, str(tmp_path / "o"), keys=["key"])


@pytest.mark.parametrize("key", ["file", "row", "logit", "probability", "probability:like", "contribution:rest"])
def test_a_key_of_the_name_of_an_output_s_own_column_is_refused(run, tmp_path, serial, key):
    table = clicks(100)
    logs = write_logs(tmp_path / "logs.csv", table.append_column(key, table["price"]))
    with pytest.raises(InputError, match=f"--keys {key}: the output has a column of its own of that name; leave it out, or rename it in"):
        predict(run, logs, str(tmp_path / "out"), keys=["site", key])


def test_of_two_datasets_it_is_said_what_sets_them_apart(data):
    own = read_manifest(data)
    model = SimpleNamespace(manifest=own, dataset=data)
    fewer = {"rejects": [], "splits": {}, "name": "other", "source": own.source | {"split": {"kind": "time"}}}
    assert other_than(data, replace(own, **fewer), model) is None
    grown = [replace(field, rows=field.rows + (field.name == "user")) for field in own.fields]
    statistics = {"statistics": own.source["statistics"] | {"moments": {"age": [1.0, 2.0]}}}
    for change, said in (
        ({"fields": own.fields[1:]}, "other categorical fields than"),
        ({"dense": own.dense[::-1]}, "other numeric features than"),
        ({"fields": grown, "source": own.source | {"schema": {}}}, "the same fields by another schema than"),
        ({"fields": grown, "source": own.source | statistics}, "the same fields, but another vocabulary of 'user' than"),
        ({"source": own.source | statistics}, "the same fields, but other statistics than"),
    ):
        assert other_than(data, replace(own, **change), model) == said


def test_a_dataset_whose_ids_mean_something_else_is_refused(run, data, tmp_path, serial):
    (tmp_path / "other").mkdir()
    other = prepared(tmp_path / "other", 700)
    line = "other/data has the same fields, but another vocabulary of 'price_log_square' than the run's dataset; score its raw logs"
    with pytest.raises(InputError, match=line):
        predict(run, other, str(tmp_path / "out"))
    with pytest.raises(InputError, match="--split test: .* has train, valid"):
        predict(run, data, str(tmp_path / "out"), splits=["test"])
    with pytest.raises(InputError, match="--keys site: a prepared dataset keeps no raw columns; .* has split, label, weight"):
        predict(run, data, str(tmp_path / "out"), keys=["site"])


def test_a_finished_output_is_left_alone_and_another_job_does_not_take_it(run, data, tmp_path, serial):
    out = tmp_path / "out"
    first = predict(run, data, str(out), splits=["valid"])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert predict(run, data, str(out), splits=["valid"]) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(InputError, match="already holds other rows, keys or weights; name another folder, or give --overwrite"):
        predict(run, data, str(out))
    assert predict(run, data, str(out), overwrite=True).rows_scored == ROWS


def test_a_prepared_file_that_lost_rows_is_named_and_not_scored_in_part(run, data, tmp_path, serial):
    copy = shutil.copytree(data, tmp_path / "data")
    [file] = read_manifest(str(copy)).splits["valid"].files
    pq.write_table(pq.read_table(copy / file.path).slice(0, file.rows - 7), copy / file.path)
    line = f"{file.path}, row group 0: it has {file.rows - 7} rows where {file.rows} were written; restore the file or prepare the dataset"
    with pytest.raises(InputError, match=line):
        predict(run, str(copy), str(tmp_path / "out"), splits=["valid"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", [False, True])
def test_what_fails_before_a_part_is_done_leaves_nothing_and_the_mended_command_takes_the_folder(run, tmp_path, serial, there):
    good, out = clicks(100), tmp_path / "out"
    if there:
        out.mkdir()
    for name, table, line in (
        ("lacking", good.drop(["price"]), "column 'price' of the schema is missing in the file"),
        ("bad", good.drop(["age"]).append_column("age", pa.array(["old"] * 100)), r"cannot be used \(age 100\), more than"),
    ):
        with pytest.raises(InputError, match=line):
            predict(run, write_logs(tmp_path / f"{name}.csv", table), str(out))
        assert out.exists() == there and not [*out.rglob("*")]
    predicted(out, predict(run, write_logs(tmp_path / "good.csv", good), str(out)))


def test_what_a_task_wrote_after_its_command_had_given_the_folder_up_is_cleared(run, data, tmp_path, serial):
    for name in ("predictions/part-00007.parquet", ".work/done/part-00007.json"):
        (tmp_path / "out" / name).parent.mkdir(parents=True)
        (tmp_path / "out" / name).write_text("late")
    found = predict(run, data, str(tmp_path / "out"), splits=["valid"])
    predicted(tmp_path / "out", found)
    assert set(contents(tmp_path / "out")) == {MANIFEST, *(file.path for file in found.files)}


def test_a_second_predict_into_a_folder_is_refused_and_takes_nothing_away(run, data, tmp_path, serial):
    out = tmp_path / "out"
    with held(out), pytest.raises(InputError, match="out is being written by another command"):
        predict(run, data, str(out), splits=["valid"])
    found = predict(run, data, str(out), splits=["valid"])
    predicted(out, found)
    with held(out), pytest.raises(InputError, match="out is being written by another command"):
        predict(run, data, str(out), splits=["valid"], overwrite=True)
    with held(out):  # what is complete is only read
        assert predict(run, data, str(out), splits=["valid"]) == found
    assert set(contents(out)) == {MANIFEST, *(file.path for file in found.files)}


def test_files_that_predict_did_not_write_stay(run, data, tmp_path, serial):
    for name, overwrite in (("notes.txt", True), ("predictions", False)):
        (tmp_path / name / name).mkdir(parents=True)
        with pytest.raises(InputError, match=rf"holds files that predict did not write \(such as {name}\)"):
            predict(run, data, str(tmp_path / name), overwrite=overwrite)
        assert (tmp_path / name / name).exists()


def test_a_kill_while_the_manifest_is_written_leaves_work_that_is_gone_on_with(run, data, tmp_path, serial, monkeypatch):
    def killed(fs, path, value):
        if path.endswith(MANIFEST):
            (tmp_path / f"out/{MANIFEST}{PARTIAL}").write_text("{")
            raise KeyboardInterrupt
        write_json(fs, path, value)

    monkeypatch.setattr(output, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        predict(run, data, str(tmp_path / "out"), splits=["valid"])
    monkeypatch.setattr(output, "write_json", write_json)
    predicted(tmp_path / "out", predict(run, data, str(tmp_path / "out"), splits=["valid"]))


def test_an_unknown_file_system_is_one_line(run, data, tmp_path, serial):
    with pytest.raises(InputError, match="^s4://logs: Protocol not known: s4$"):
        predict(run, "s4://logs", str(tmp_path / "out"))
    with pytest.raises(InputError, match="^s4://out: Protocol not known: s4$"):
        predict(run, data, "s4://out")


def test_a_full_disk_is_one_line_and_the_same_call_goes_on_once_there_is_room(run, data, tmp_path, serial, undisturbed, monkeypatch):
    whole, room = SplitWriter.write, [500]

    def write(writer, table):
        room[0] -= len(table)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(writer, table)

    monkeypatch.setattr(SplitWriter, "write", write)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="cannot be written: No space left on device; make room or name another folder, then run it again"):
        predict(run, logs_of(data), str(out), **PARTS)
    assert 0 < len([*(out / ".work/done").iterdir()]) < 8
    room[0] = 10**9
    predict(run, logs_of(data), str(out), **PARTS)
    assert contents(out) == undisturbed[0]


def test_what_auto_chose_is_recorded_and_gone_on_with_where_it_would_choose_otherwise(
    run, data, tmp_path, serial, undisturbed, monkeypatch
):
    def stopped(score, tasks, actors):
        yield from map_tasks(score, tasks[:2], actors)
        raise KeyboardInterrupt

    map_tasks, out = module.map_tasks, tmp_path / "out"
    monkeypatch.setattr(build, "bf16_pays_on_cpu", lambda: False)
    monkeypatch.setattr(module, "map_tasks", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict(run, logs_of(data), str(out), precision="auto", **PARTS)
    monkeypatch.setattr(build, "bf16_pays_on_cpu", lambda: True)
    monkeypatch.setattr(module, "map_tasks", map_tasks)
    found = predict(run, logs_of(data), str(out), precision="auto", **PARTS)
    assert found.precision == "fp32" and predicted(out, found).equals(undisturbed[1])
    assert predict(run, logs_of(data), str(tmp_path / "anew"), precision="auto", **PARTS).precision == "bf16"


def test_nodes_that_would_score_in_two_precisions_are_refused_until_one_is_set(run, data, tmp_path, serial, undisturbed, monkeypatch):
    kinds, out = itertools.cycle([True, False]), tmp_path / "out"
    monkeypatch.setattr(build, "bf16_pays_on_cpu", lambda: next(kinds))
    for _ in range(2):
        with pytest.raises(
            InputError, match="^parts were scored in bf16 and in fp32, as the machines are of two kinds; set --precision, and"
        ):
            predict(run, logs_of(data), str(out), precision="auto", **PARTS)
        assert len([*(out / ".work/done").iterdir()]) == 2
    found = predict(run, logs_of(data), str(out), precision="fp32", overwrite=True, **PARTS)
    assert found.precision == "fp32" and predicted(out, found).equals(undisturbed[1])


def test_parts_of_a_dataset_hold_every_row_group_once_in_order(data):
    manifest = read_manifest(data)
    split = manifest.splits["train"]
    file = split.files[0]
    split = type(split)(rows=50, positives=1, files=[type(file)(**vars(file) | {"rows": 50, "row_groups": [20, 20, 10]})])
    small = type(manifest)(**vars(manifest) | {"splits": {"train": split}, "row_group_rows": 20})
    parts = PreparedRows("", small, ["train"], [], part_rows=40).parts
    assert [(part.row, part.first, part.rows) for part in parts] == [(0, 0, [20, 20]), (40, 2, [10])]


# ---- on Ray, and killed


@pytest.fixture
def one_core(monkeypatch):
    """Each worker computes in one thread, as `undisturbed` did: the sums of several differ in their last bits."""
    monkeypatch.setattr(module, "cpu_count", lambda: 1)


def test_two_workers_one_of_which_is_killed_leave_the_same_files(run, data, tmp_path, undisturbed, ray_local, one_core, monkeypatch):
    mark, map_tasks = tmp_path / "mark", module.map_tasks

    def dying(score):
        def once(numbered):
            if numbered[0] == 2 and not mark.exists():  # it writes the part, and dies before it books it
                mark.write_text("")
                Folder.book = lambda folder, number, part: os.kill(os.getpid(), signal.SIGKILL)
            return score(numbered)

        return once

    monkeypatch.setattr(module, "map_tasks", lambda score, tasks, actors: map_tasks(dying(score), tasks, actors))
    found = predict(run, logs_of(data), str(tmp_path / "out"), workers=2, **PARTS)
    assert mark.exists() and contents(tmp_path / "out") == undisturbed[0]
    assert predicted(tmp_path / "out", found).equals(undisturbed[1])


SCRIPT = """
import sys, time, ray
from sml_dist.scoring import predict
ray.init(sys.argv[4], log_to_driver=False)
predict.cpu_count = lambda: 1
waits = lambda stage, done, of: time.sleep(600 if stage == "score" and done else 0)
predict.predict(*sys.argv[1:4], workers=1, part_bytes=8_000, show=waits)
"""


def test_a_killed_driver_s_work_is_gone_on_with_and_each_row_is_there_once(run, data, tmp_path, undisturbed, ray_local, one_core):
    out, address = tmp_path / "out", ray_local.get_runtime_context().gcs_address
    command = [sys.executable, "-c", SCRIPT, run, logs_of(data), str(out), address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done, end = out / ".work/done", time.monotonic() + 100
    while not (done.is_dir() and len([*done.iterdir()]) > 1) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
    assert not (out / "predictions.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in done.iterdir()}
    with pytest.raises(InputError, match="was begun with other rows, keys or weights"):
        predict(run, logs_of(data), str(out), keys=[], **PARTS)
    found = predict(run, logs_of(data), str(out), workers=2, **PARTS)
    assert kept and contents(out) == undisturbed[0]
    assert predicted(out, found).equals(undisturbed[1])
