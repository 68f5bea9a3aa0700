"""What `train` prints of a run at its end, and again of one that was done before."""

import json
import math

import pytest

from sml_dist.cli import training
from sml_dist.cli.app import way_on
from sml_dist.spec import many
from sml_dist.train.run_folder import RunFolder

SPLIT = {"auc": math.nan, "gauc": math.nan, "logloss": 0.5, "ne": math.nan, "calibration": math.nan, "rows": 1000}
GROUP = {"group": 7, "rows": 10.0, "positives": 0.0, "auc": math.nan}


def test_a_metric_that_is_undefined_is_printed_of_a_run_that_was_done_before_as_at_its_end(tmp_path, capsys):
    summary = {
        "model": "dnn", "sml": False, "workers": 1, "precision": "fp32", "epochs": 1.0, "rows_seen": 1000, "samples_per_second": 10.0,
        "data_wait_fraction": 0.0, "run": str(tmp_path), "best": {"valid": {"auc": math.nan, "logloss": 0.4}},
        "valid": SPLIT | {"groups": 1, "largest_groups": [GROUP]}, "test": SPLIT | {"labels": {"like": SPLIT, "share": SPLIT}},
    }  # fmt: skip
    folder, printed = RunFolder(tmp_path), []
    folder.write_json("summary.json", summary)
    for each in (summary, folder.read_json("summary.json")):
        training.show_summary(each, as_json=False)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and printed[1].count("nan") == 13
    assert f"sml-dist evaluate {tmp_path} --split valid --by group" in printed[1]
    training.show_summary(summary | {"group_field": "user"}, as_json=False)
    assert f"sml-dist evaluate {tmp_path} --split valid --by user has the largest" in capsys.readouterr().out
    training.show_summary(summary, as_json=True)
    assert json.loads(capsys.readouterr().out) == folder.read_json("summary.json")


@pytest.mark.parametrize(
    ("count", "said"), [(1, "1 epoch"), (1.0, "1 epoch"), (0.5, "0.5 epochs"), (1200, "1,200 epochs"), (0, "0 epochs")]
)
def test_one_is_singular(count, said):
    assert many(count, "epoch") == said


@pytest.mark.parametrize(
    ("words", "goes_on"),
    [("train a.yaml", True), ("study ablation a.yaml --output b", True), ("study --output b online a.yaml", True), ("predict runs/a", True),
     ("study depth a.yaml --output b", False), ("synth --rows 9", False), ("bench train", False)],
)  # fmt: skip
def test_an_interrupted_command_is_known_to_resume_or_not(words, goes_on):
    assert way_on(words.split()) == f"; the same command {'resumes it' if goes_on else 'starts over'}"


@pytest.mark.parametrize("words", ["submit train configs/smoke.yaml", "jobs follow 7"])
def test_of_an_interrupted_job_nothing_is_said_for_it_may_go_on_by_itself(words):
    assert way_on(words.split()) == ""
