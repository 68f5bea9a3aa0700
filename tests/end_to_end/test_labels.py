"""Runs on several labels and on sequences, whole but for Ray: what is learnt, measured by label, and refused."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sml_dist.config.run import RunConfig, RunSection, dump, load, parse
from sml_dist.data.dataset import fingerprint
from sml_dist.embeddings.capacity_report import make_cluster, plan_run
from sml_dist.scoring.evaluate import Options, alike, evaluate
from sml_dist.scoring.predict import predict
from sml_dist.serve.export import export
from sml_dist.serve.layout import FEATURES
from sml_dist.spec import InputError
from sml_dist.train.again import finished
from sml_dist.train.alone import train_alone
from sml_dist.train.check import check
from tests.data.histories import prepared
from tests.faults.serial import contents
from tests.scoring.runs import alone_in_process, predicted

ONE = "label: {column: rating, at_least: 5}"
MODELS = {
    "mmoe": {"experts": 2, "expert": {"hidden": [16]}, "tower": {"hidden": [8]}},
    "din": {"attention": {"hidden": [16]}, "tower": {"hidden": [16]}},
    "dnn": {"tower": {"hidden": [16]}},
    "dcn_v2": {"cross_layers": 1, "tower": {"hidden": [16]}},
}


@pytest.fixture(scope="module")
def two_labels(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("two")
    prepared(folder, 3_000)
    return str(folder / "data")


@pytest.fixture(scope="module")
def one_label(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("one")
    prepared(folder, 4_000, labels=ONE)
    return str(folder / "data")


@pytest.fixture(scope="module")
def love_runs(two_labels, tmp_path_factory) -> dict[str, dict]:
    """DCN-V2 on a dataset of two labels of which it uses one, and on a dataset prepared with that one alone: their summaries."""
    folder = tmp_path_factory.mktemp("alone")
    prepared(folder, 3_000, labels=ONE)
    each = {"of two": config(two_labels, folder, "dcn_v2", label="love"), "alone": config(str(folder / "data"), folder / "alone", "dcn_v2")}
    return {name: train_alone(run) for name, run in each.items()}


def config(data: str, folder: Path, model: str, label: str | None = None, **train) -> RunConfig:
    return parse(
        {
            "run": {"name": model, "storage": str(folder)},
            "data": {"path": data, "label": label, "streams": 4},
            "model": {"name": model, **MODELS[model]},
            "embedding": {"dim": 8, "lr": 0.1, "init_std": 0.3},
            "train": {"global_batch_size": 128, "epochs": 4, "lr": 0.01, "precision": "fp32", "threads": 1, **train},
        }
    )


def test_a_run_on_several_labels_tells_each_ones_metrics_and_keeps_the_weights_best_for_the_one_named(two_labels, tmp_path):
    summary = train_alone(config(two_labels, tmp_path, "mmoe", monitor="love.logloss"))
    metrics = summary["valid"]
    assert list(metrics["labels"]) == ["like", "love"]
    assert metrics["labels"]["like"].items() <= metrics.items()
    assert min(found["auc"] for found in metrics["labels"].values()) > 0.52
    lines = [json.loads(line) for line in (tmp_path / "mmoe/metrics.jsonl").read_text().splitlines()]
    told = [line["labels"]["love"]["logloss"] for line in lines if line.get("split") == "valid"]
    assert len(told) == 4 and min(told) == metrics["labels"]["love"]["logloss"]


def test_attention_finds_the_candidate_among_a_users_behaviours(one_label, tmp_path):
    """A film that was seen lately is loved; without the sequence a DNN gets .51."""
    assert train_alone(config(one_label, tmp_path, "din"))["valid"]["auc"] > 0.7


def test_models_and_labels_that_do_not_go_together_are_refused_before_a_worker_starts(one_label, two_labels, tmp_path):
    with pytest.raises(
        InputError, match="^model dnn .* one label, and the data has 2; models that fit: mmoe; or set data.label to the one to predict$"
    ):
        check(config(two_labels, tmp_path, "dnn"))
    with pytest.raises(InputError, match="^model mmoe predicts several labels, and the data has 1; models that fit: lr, fm, dnn"):
        check(config(one_label, tmp_path, "mmoe"))
    with pytest.raises(InputError, match=r"^train.monitor lust.auc: .* has labels like, love$"):
        check(config(two_labels, tmp_path, "mmoe", monitor="lust.auc"))
    with pytest.raises(InputError, match=r"^train.monitor label.auc: .* has one label; give the metric alone$"):
        check(config(one_label, tmp_path, "din", monitor="label.auc"))
    with pytest.raises(InputError, match="^train.monitor: 'love.acu' is no metric; give auc, gauc, logloss, ne, or with a label as in"):
        config(two_labels, tmp_path, "mmoe", monitor="love.acu")
    check(config(two_labels, tmp_path, "mmoe", monitor="love.auc"))


def test_a_run_on_one_label_of_two_has_the_bytes_of_a_run_on_a_dataset_of_that_label_alone(love_runs, two_labels):
    def weights(summary: dict) -> dict[str, str]:
        return {name: code for name, code in contents(Path(summary["run"]) / "checkpoints").items() if name.endswith(".safetensors")}

    def about(summary: dict) -> dict:
        return json.loads((Path(summary["run"]) / "about.json").read_text())["dataset"]

    one, alone = love_runs["of two"], love_runs["alone"]
    assert weights(one) and weights(one) == weights(alone)
    assert measured(one["valid"]) == measured(alone["valid"]) and about(one)["positives"] == about(alone)["positives"]
    assert about(one)["sha256"] == fingerprint(two_labels) == fingerprint(f"{one['run']}/dataset")


def test_a_run_on_one_label_of_two_is_scored_measured_and_exported_as_one_on_that_label_alone(love_runs, two_labels, tmp_path, monkeypatch):
    alone_in_process(monkeypatch)
    logits, metrics = [], []
    for name, summary in love_runs.items():
        data = two_labels if name == "of two" else str(Path(summary["run"]).parents[1] / "data")
        for source in (data, str(Path(data).parent / "log.parquet")):
            out = tmp_path / name / Path(source).stem
            table = predicted(out, predict(summary["run"], source, str(out)))
            assert {"logit", "probability"} <= {*table.column_names}
            logits.append(table["logit"].to_pylist())
            metrics.append(evaluate(summary["run"], data=source, options=Options(resamples=20))["metrics"])
        export(summary["run"], str(tmp_path / name / "export"), onnx=False)
    assert logits[0] == logits[2] and logits[1] == logits[3] and metrics[0] == metrics[2] and metrics[1] == metrics[3]
    tables = [{path: code for path, code in contents(tmp_path / name / "export").items() if "tables" in path} for name in love_runs]
    assert tables[0] and tables[0] == tables[1]
    assert json.loads((tmp_path / "of two/export" / FEATURES).read_text())["labels"] == ["love"]


def test_runs_on_several_labels_and_on_one_of_them_are_compared_on_that_one(love_runs, two_labels, tmp_path):
    both, one = train_alone(config(two_labels, tmp_path, "mmoe", epochs=1))["run"], love_runs["of two"]["run"]
    found = evaluate(one, against=both, options=Options(resamples=20))
    turned = evaluate(both, against=one, options=Options(resamples=20))
    assert turned["label"] == "love"  # both predict it, though the first run's first label is another
    assert found["label"] == turned["label"] == "love"
    assert found["metrics"] == turned["against"]["metrics"] and found["against"]["metrics"] == turned["metrics"]
    with pytest.raises(InputError, match="^--label like: the run predicts love$"):
        evaluate(one, options=Options(label="like"))
    like, love = (SimpleNamespace(manifest=SimpleNamespace(labels=[name])) for name in ("like", "love"))
    with pytest.raises(InputError, match="^the runs predict like and love, no label of the same name; name another run$"):
        alike(Options(), like, love)


def test_a_run_starts_from_one_on_one_label_of_two_but_does_not_go_on_with_another_label(love_runs, tmp_path):
    run = parse_of(love_runs["of two"])
    warm = replace(parse_of(love_runs["alone"]), run=RunSection(name="warm", storage=str(tmp_path), warm_start=run.run.folder))
    assert train_alone(warm)["valid"]["auc"] > 0.52
    told = (tmp_path / "warm/metrics.jsonl").read_text()
    assert "by value" in told and "by name" in told  # the latter where no tensor of the dense part starts anew
    with pytest.raises(InputError, match="^run dcn_v2 was started with data.label=love, now it is like; choose another run.name$"):
        finished(replace(run, data=replace(run.data, label="like")))


def test_a_label_that_a_dataset_does_not_have_is_refused_in_a_line_that_says_which_there_are(one_label, two_labels, tmp_path):
    with pytest.raises(InputError, match=r"^data.label lust: .*/data has labels like, love$"):
        check(config(two_labels, tmp_path, "dcn_v2", label="lust"))
    with pytest.raises(InputError, match=r"^data.label love: .*/data has one label; leave the key out$"):
        check(config(one_label, tmp_path, "dcn_v2", label="love"))
    with pytest.raises(InputError, match=r"^train.monitor love.auc: .* has one label; give the metric alone$"):
        check(config(two_labels, tmp_path, "dcn_v2", label="love", monitor="love.auc"))
    with pytest.raises(InputError, match="^model mmoe predicts several labels, and the data has 1; models that fit: lr, fm, .*, din$"):
        check(config(two_labels, tmp_path, "mmoe", label="love"))


def test_a_plan_takes_the_one_label_that_the_run_uses(two_labels, tmp_path):
    (tmp_path / "run.yaml").write_text(dump(config(two_labels, tmp_path, "dcn_v2", label="love")))
    machine = make_cluster(world_size=2, local_world_size=2, device="cpu", hbm="0", ddr="8GB")
    assert plan_run(str(tmp_path / "run.yaml"), None, machine).fits
    with pytest.raises(InputError, match="or set data.label to the one to predict$"):
        plan_run(str(tmp_path / "run.yaml"), ["data.label=null"], machine)


def measured(metrics: dict) -> dict:
    return {name: value for name, value in metrics.items() if name != "seconds"}


def parse_of(summary: dict) -> RunConfig:
    return load(f"{summary['run']}/config.yaml")
