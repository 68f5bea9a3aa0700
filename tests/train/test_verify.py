"""`verify` finds every row that is missing, doubled or not the plan's, and every damaged checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sml_dist.cli import app
from sml_dist.config.run import RunConfig, parse
from sml_dist.data.synthetic import synth
from sml_dist.scoring.trained import find
from sml_dist.spec import InputError
from sml_dist.train.alone import train_alone
from sml_dist.train.verify import verify_run
from tests.faults.test_checkpoints import to_another_format


def config(data: str, storage: Path, **train) -> RunConfig:
    return parse(
        {
            "run": {"name": "r", "storage": str(storage)},
            "data": {"path": data, "streams": 4},
            "model": {"name": "dnn", "tower": {"hidden": [8]}},
            "embedding": {"dim": 8},
            "train": {"global_batch_size": 64, "epochs": 2, "precision": "fp32", "threads": 1, "record_rows": True, **train},
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of two attempts: stopped after 20 steps, then gone on with to the end of the second epoch."""
    folder = tmp_path_factory.mktemp("verify")
    synth(1_500, str(folder / "data"), fields=3, dense=2, table_rows=90)
    train_alone(config(str(folder / "data"), folder, max_steps=20))
    summary = train_alone(config(str(folder / "data"), folder))
    assert summary["restarts"] == 1 and summary["steps"] == 38
    return folder / "r"


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "r")


def lines_of(copy: Path, attempt: int) -> tuple[Path, list[dict]]:
    path = sorted((copy / "ledger").glob("*.jsonl"))[attempt]
    return path, [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_in_order_is_said_to_be_in_order(run):
    found = verify_run(str(run))
    assert found["ok"] and found["rows"] == 2 * 1_200 and found["workers"] == [1, 1] and found["epochs"] == 2
    assert (found["missing"], found["doubled"], found["wrong"], found["skipped"], found["damaged"]) == (0, 0, 0, [], [])


def test_a_checkpoint_names_the_build_of_fbgemm_that_it_was_made_with(run):
    [manifest, *_] = (run / "checkpoints").glob("*/MANIFEST.json")
    assert {"fbgemm-gpu-cpu", "fbgemm-gpu"} & json.loads(manifest.read_text())["versions"].keys()


def test_a_step_without_a_line_is_rows_missing(copy):
    path, lines = lines_of(copy, 0)
    write(path, lines[:7] + lines[8:])
    found = verify_run(str(copy))
    assert not found["ok"] and (found["missing"], found["doubled"]) == (64, 0)


def test_a_batch_used_again_by_another_step_is_rows_doubled(copy):
    path, lines = lines_of(copy, 1)
    lines[3] |= {"epoch": 0, "batch": 2}
    write(path, lines)
    found = verify_run(str(copy))
    assert not found["ok"] and (found["missing"], found["doubled"]) == (64, 64)


def test_other_rows_than_the_plans_or_other_weights_are_wrong(copy):
    path, lines = lines_of(copy, 0)
    lines[5]["digest"] = lines[6]["digest"]
    write(path, lines)
    assert verify_run(str(copy))["wrong"] == 64
    path, lines = lines_of(copy, 0)
    lines[5]["digest"], lines[5]["weight"] = "0", 3.0
    write(path, lines)
    assert not verify_run(str(copy))["ok"]


def test_lines_of_steps_that_were_done_again_count_for_nothing(copy):
    path, lines = lines_of(copy, 0)
    write(path, [*lines, *({**line, "step": line["step"] + 20, "digest": "00"} for line in lines)])
    assert verify_run(str(copy))["ok"]


def test_a_skipped_batch_is_named(copy):
    path, lines = lines_of(copy, 1)
    lines[2]["skipped"] = True
    write(path, lines)
    assert verify_run(str(copy))["skipped"] == [[lines[2]["epoch"], lines[2]["batch"]]]


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_held_against_the_ledger(copy):
    newest = sorted((copy / "checkpoints").iterdir())[-1]
    file = next(newest.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    found = verify_run(str(copy))
    assert not found["ok"] and len(found["damaged"]) == 1 and str(file) in found["damaged"][0]
    assert found["step"] == 20 and (found["missing"], found["doubled"]) == (0, 0)


def test_what_cannot_be_verified_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint; name the folder of a run"):
        verify_run(str(tmp_path))
    synth(900, str(tmp_path / "other"), fields=3, dense=2, table_rows=90)
    with pytest.raises(InputError, match="is not the dataset that .* was trained on; name it with --data"):
        verify_run(str(run), str(tmp_path / "other"))


def test_without_a_ledger_the_checkpoints_are_verified_alone(tmp_path):
    synth(1_500, str(tmp_path / "data"), fields=3, dense=2, table_rows=90)
    train_alone(config(str(tmp_path / "data"), tmp_path, max_steps=20, record_rows=False))
    found = verify_run(str(tmp_path / "r"))
    assert found["ok"] and found["step"] == 20 and "rows" not in found
    file = next(Path(tmp_path / "r").glob("checkpoints/*/*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    assert not verify_run(str(tmp_path / "r"))["ok"]


def test_a_checkpoint_of_another_format_is_listed_and_the_others_are_checked(copy):
    names = sorted(path.name for path in (copy / "checkpoints").iterdir())
    assert len(names) > 1
    line = to_another_format(copy / "checkpoints" / names[-1])
    found = verify_run(str(copy))
    assert not found["ok"] and found["damaged"] == [f"{line}: take that version to check it"]
    assert found["step"] == int(names[-2].removeprefix("step-")) and found["missing"] == 0
    lines = [to_another_format(copy / "checkpoints" / name) for name in names[:-1]] + [line]
    assert len(verify_run(str(copy))["damaged"]) == len(lines)


def test_who_scores_a_checkpoint_of_another_format_is_not_told_to_move_it_away(copy):
    for checkpoint in (copy / "checkpoints").iterdir():
        line = to_another_format(checkpoint)
        for named in ((str(checkpoint),), (str(copy), int(checkpoint.name.removeprefix("step-")))):
            with pytest.raises(InputError) as error:
                find(*named)
            assert str(error.value) == f"{line}: take that version, or name another run or checkpoint"
    with pytest.raises(InputError, match=": take that version, or name another run or checkpoint$"):
        find(str(copy))


@pytest.fixture(scope="module")
def partly(tmp_path_factory) -> Path:
    """A run of three attempts, to step 10, 20 and 38: the second alone kept a ledger."""
    folder = tmp_path_factory.mktemp("partly")
    synth(1_500, str(folder / "data"), fields=3, dense=2, table_rows=90)
    for steps, recorded in ((10, False), (20, True), (38, False)):
        train_alone(config(str(folder / "data"), folder, max_steps=steps, record_rows=recorded, keep_checkpoints=9))
    return folder / "r"


@pytest.fixture
def partly_copy(partly, tmp_path) -> Path:
    return shutil.copytree(partly, tmp_path / "r")


def test_steps_of_attempts_that_kept_no_ledger_are_named_and_left_out(partly):
    found = verify_run(str(partly))
    # an epoch has 19 steps, the last of 1,200 - 18 * 64 = 48 rows
    assert found["ok"] and found["unrecorded"] == [[1, 10], [21, 38]] and found["rows"] == 9 * 64 + 48
    assert (found["missing"], found["doubled"], found["wrong"]) == (0, 0, 0)


def test_the_ledger_of_an_attempt_that_kept_one_is_missed_under_any_configuration_that_keeps_one(partly_copy):
    for step in ("step-000000038", "step-000000010"):
        shutil.rmtree(partly_copy / "checkpoints" / step)
    assert verify_run(str(partly_copy))["unrecorded"] == [[1, 10]]
    path, lines = lines_of(partly_copy, 0)
    write(path, lines[:2] + lines[3:])
    assert verify_run(str(partly_copy))["missing"] == 64
    path.unlink()
    found = verify_run(str(partly_copy))
    assert not found["ok"] and found["missing"] == 9 * 64 + 48 and found["unrecorded"] == [[1, 10]]


def test_a_line_of_a_step_that_kept_no_ledger_is_a_row_used_again(partly_copy):
    path, lines = lines_of(partly_copy, 0)
    lines[3] |= {"epoch": 0, "batch": 2}
    write(path, lines)
    found = verify_run(str(partly_copy))
    assert (found["missing"], found["doubled"], found["wrong"]) == (64, 64, 0)


def test_the_command_says_which_steps_it_knows_nothing_of(partly):
    said = CliRunner().invoke(app, ["verify", str(partly)], env={"COLUMNS": "200"})
    assert said.exit_code == 0 and "steps 1 to 10 and 21 to 38 were made without a ledger (train.record_rows)" in said.stdout
    assert "each row of the other steps was used once" in said.stdout
