"""`evaluate`: the metrics of training's own evaluation, with slices that make up the whole, and two runs on the same rows."""

import csv
import json
import math
import re
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from sml_dist.cli import app
from sml_dist.data.dataset import multi_column, read_manifest
from sml_dist.data.vocab import read_tokens
from sml_dist.scoring import evaluation_page
from sml_dist.scoring.bootstrap import Scored
from sml_dist.scoring.calibration import Bin
from sml_dist.scoring.evaluate import Options, delong_holds, evaluate, measured, sliced
from sml_dist.scoring.evaluation_page import metric_rows, page, write
from sml_dist.scoring.evaluation_text import about_intervals, against, metrics_table, slices_tables
from sml_dist.scoring.slices import namer, values_of
from sml_dist.spec import InputError, to_dict
from sml_dist.tabular import markdown_table
from sml_dist.train.alone import train_alone
from sml_dist.train.metrics import auc
from tests.data.histories import choosy
from tests.data.raw_logs import SCHEMA, clicks, write_logs
from tests.faults.serial import contents
from tests.models.test_zoo import config as model_config
from tests.scoring.runs import alone_in_process, config, prepared, rows_of, train

QUICK = {"resamples": 20}


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> tuple[dict, dict]:
    """The summaries of two runs."""
    folder = tmp_path_factory.mktemp("runs")
    first = train_alone(config(data, folder, "first"))
    return first, train_alone(config(data, folder, "second", train={"seed": 1, "epochs": 2}))


def test_the_metrics_are_those_of_training_and_slices_make_up_the_whole(runs, data):
    found = evaluate(runs[0]["run"], options=Options(by=("site", "group", "tags"), top=100, **QUICK))
    expected = runs[0]["valid"]
    for name in ("auc", "gauc", "logloss", "ne", "calibration"):
        metric = found["metrics"][name]
        assert metric["value"] == pytest.approx(expected[name], abs=1e-6) and metric["low"] <= metric["value"] <= metric["high"]
    assert found["rows"] == expected["rows"] and found["split"] == "valid"
    rows = clicks(1500).slice(1200).to_pylist()
    for name in ("site", "group"):
        assert sum(line["rows"] for line in found["slices"][name]) == found["rows"]
        assert sum(line["positives"] for line in found["slices"][name]) == found["positives"]
    tokens = read_tokens(data, "site").to_pylist()
    by_site = {line["value"]: line["rows"] for line in found["slices"]["site"]}
    for token in tokens:
        assert by_site.get(token, 0) == sum(row["site"] == token for row in rows)
    by_tag = {line["value"]: line["rows"] for line in found["slices"]["tags"]}
    assert by_tag["b"] == sum("b" in row["tags"].split("|") for row in rows)
    sizes = [line["rows"] for line in found["slices"]["group"]]
    assert sizes == sorted(sizes, reverse=True)


def test_a_field_named_twice_is_sliced_once(runs):
    found = evaluate(runs[0]["run"], options=Options(by=("site", "site"), top=100, **QUICK))
    assert sum(line["rows"] for line in found["slices"]["site"]) == found["rows"]


def test_a_slice_of_one_group_shows_no_interval_where_groups_are_drawn(runs):
    found = evaluate(runs[0]["run"], options=Options(by=("group", "device"), top=3, unit="group", **QUICK))
    for name, known in (("group", False), ("device", True)):
        [table] = slices_tables(name, found)
        assert table.title == f"by {name}: the 3 largest"
        assert [bool(cell) for cell in table.columns[4].cells] == [known] * 3 and all(table.columns[3].cells)


def test_a_difference_without_an_interval_is_not_shown_as_sure():
    unknown = {"value": 0.25, "low": math.nan, "high": math.nan}
    found = {"against": {"metrics": {"auc": unknown}}, "differences": {"auc": unknown}}
    _, shown, *rest = against(found, "auc")
    assert (shown.plain, shown.style, rest) == ("+0.25000", "", [""])


def test_what_the_training_rows_hold_too_seldom_or_not_at_all_is_called_rare_or_unseen(data):
    name = namer("site", SimpleNamespace(manifest=read_manifest(data), dataset=data))
    assert [name(0), name(1)] == ["(rare or unseen)", read_tokens(data, "site")[0].as_py()]


def test_a_row_with_a_value_twice_is_one_row_of_its_slice(data):
    """Two rare tags are id 0 both."""
    manifest = read_manifest(data)
    for lists, expected in (([[0, 0, 2], [], [2, 0]], ([0, 0, 2, 2], [0, 2, 0, 2])), ([[], []], ([], []))):
        table = pa.table({multi_column("tags"): pa.array(lists, pa.list_(pa.int32()))})
        assert tuple(column.tolist() for column in values_of("tags", table, manifest)) == expected


def test_groups_are_known_by_the_field_of_their_column_where_it_has_a_vocabulary(data):
    manifest = read_manifest(data)
    assert manifest.group_field == "user"
    for group in ("device", None):  # hashed; no groups
        assert replace(manifest, source=manifest.source | {"schema": {"group": group}}).group_field is None


def test_two_runs_are_compared_on_the_same_rows(runs):
    first, second = runs[0]["run"], runs[1]["run"]
    found = evaluate(first, against=second, options=Options(**QUICK))
    turned = evaluate(second, against=first, options=Options(**QUICK))
    for name, one in found["differences"].items():
        assert one["value"] == pytest.approx(found["metrics"][name]["value"] - found["against"]["metrics"][name]["value"], abs=1e-12)
        assert (turned["differences"][name]["low"], turned["differences"][name]["high"]) == pytest.approx((-one["high"], -one["low"]))
    assert found["metrics"] == evaluate(first, options=Options(**QUICK))["metrics"]
    assert "p" not in found["differences"]["auc"], "weighted rows are not DeLong's"
    same = evaluate(first, against=first, options=Options(**QUICK))
    assert {one["value"] for one in same["differences"].values()} == {0}


@pytest.mark.parametrize("weighted", [False, True])
def test_where_one_of_two_runs_lost_and_where_it_won_shows_by_slice(weighted):
    """The first sees less of the truth in city 7 and the second in city 3, both all of it in city 5; over all rows neither is better."""
    draw, city = np.random.default_rng(0), np.repeat([7, 3, 5], [1900, 2000, 100])
    truth, noise = draw.normal(size=4000) * 2, draw.normal(size=4000) * 2
    labels = (draw.random(4000) < 1 / (1 + np.exp(-truth))).astype(float)
    weights = draw.integers(1, 4, 4000).astype(float) if weighted else np.ones(4000)
    both = [Scored(truth + noise * (city == worse), labels, weights) for worse in (7, 3)]
    model, options = SimpleNamespace(manifest=SimpleNamespace(fields=[], source={})), Options(resamples=100)
    by_delong = delong_holds(both[0], options)
    assert by_delong != weighted
    whole, rows = measured(both, 100, by_delong, options), np.arange(4000)
    slices = sliced("city", both, rows, city, model, by_delong, options)
    assert [line["value"] for line in slices] == ["3", "7", "5"], "the largest first"
    won, lost, alike = (line["differences"] for line in slices)
    assert won["auc"]["low"] > 0 > won["logloss"]["high"] and lost["auc"]["high"] < 0 < lost["logloss"]["low"]
    assert {one["value"] for one in alike.values()} == {0} and whole["differences"]["auc"]["low"] < 0 < whole["differences"]["auc"]["high"]
    [everywhere] = sliced("city", both, rows, np.zeros(4000, int), model, by_delong, options)
    assert everywhere == everywhere | whole, "a slice of all rows says what the whole says"

    found = found_with([Bin(9, 9.0, 0.1, 0.1, 0.0, 0.5)]) | whole | {"run": "runs/new", "slices": {"city": slices}}
    found["against"] |= {"run": "runs/old", "checkpoint": "c"}
    for shown, name in zip(slices_tables("city", found), ("AUC", "logloss"), strict=True):
        assert shown.title == f"{name} by city: the 3 largest"
        p = ["p"] if by_delong and name == "AUC" else []
        assert [column.header for column in shown.columns] == ["city", "rows", "new", "old", "difference", "95 %", *p]
        assert [cell.style for cell in shown.columns[4].cells] == ["bold", "bold", ""]
    assert f"| 3 | 2,000 | {slices[0]['positives']:.5f} |" in page(found)
    assert page(found).count(f" {lost['auc']['value']:.5f} | {lost['auc']['low']:.5f} | {lost['auc']['high']:.5f} |") == 1


def test_raw_logs_are_evaluated_through_the_run_s_own_vocabulary_and_two_runs_need_not_share_one(runs, data, tmp_path, monkeypatch):
    alone_in_process(monkeypatch)
    logs = write_logs(tmp_path / "logs.csv", clicks(1500).slice(1200))
    found = evaluate(runs[0]["run"], data=logs, options=Options(by=("site",), **QUICK))
    assert found["metrics"] == evaluate(runs[0]["run"], options=Options(**QUICK))["metrics"] and found["split"] == "all"
    (tmp_path / "other").mkdir()
    other = train_alone(config(prepared(tmp_path / "other", 700), tmp_path, "other"))
    with pytest.raises(InputError, match="the same fields, but another vocabulary of 'price_log_square' than the run's dataset"):
        evaluate(runs[0]["run"], against=other["run"], options=Options(**QUICK))
    both = evaluate(runs[0]["run"], data=logs, against=other["run"], options=Options(**QUICK))
    assert both["metrics"] == found["metrics"] and both["against"]["metrics"] != found["metrics"]
    bare = clicks(1500).slice(1200)
    bare = bare.set_column(bare.column_names.index("tags"), "tags", pa.array([""] * len(bare)))
    found = evaluate(runs[0]["run"], data=write_logs(tmp_path / "bare.csv", bare), options=Options(by=("tags",), **QUICK))
    assert found["slices"] == {}, "no row has a tag"
    with pytest.raises(InputError, match="--split valid: --data .*bare.csv is raw logs, which have no splits; leave the option out"):
        evaluate(runs[0]["run"], data=str(tmp_path / "bare.csv"), split="valid")
    with pytest.raises(InputError, match="bare.csv has no column 'click', the schema's label; it has price"):
        evaluate(runs[0]["run"], data=write_logs(tmp_path / "bare.csv", bare.drop(["click"])))
    with pytest.raises(InputError, match="--data .* matches no file"):
        evaluate(runs[0]["run"], data=str(tmp_path / "none*.csv"))


@pytest.fixture(scope="module")
def other_columns(tmp_path_factory) -> str:
    """A run whose schema has another weight, and no group."""
    folder = tmp_path_factory.mktemp("other_columns")
    schema = SCHEMA.replace("group: user\nweight: w", "weight: v")
    each = config(prepared(folder, 700, schema=schema, v=[1] * 700), folder)
    train(each)
    return each.run.folder


def test_two_runs_are_compared_under_the_weights_and_groups_of_the_first(runs, other_columns, tmp_path, monkeypatch):
    """Whatever their schemas make of these, a model does not differ from itself, and each shows what it has alone."""
    alone_in_process(monkeypatch)
    table, first = clicks(300, seed=1), runs[0]["run"]
    logs = write_logs(tmp_path / "logs.csv", table.append_column("v", [[1] * 300]))
    for run, other, unit in ((first, other_columns, "group"), (other_columns, first, "row")):
        found = evaluate(run, data=logs, against=other, options=Options(unit=unit, **QUICK))
        assert found["metrics"] == evaluate(run, data=logs, options=Options(unit=unit, **QUICK))["metrics"]
        assert found["metrics"].keys() == found["against"]["metrics"].keys() == found["differences"].keys()
        for name, one in found["differences"].items():
            assert one["value"] == pytest.approx(found["metrics"][name]["value"] - found["against"]["metrics"][name]["value"], abs=1e-12)
        assert ("gauc" in found["differences"], "p" in found["differences"]["auc"]) == (run == first, run == other_columns)
    draw = np.random.default_rng(0)
    one = Scored(draw.normal(size=300), draw.integers(0, 2, 300).astype(float), np.ones(300), draw.integers(0, 9, 300))
    for weights, groups in ((one.weights, None), (np.arange(1.0, 301), one.groups), (np.arange(1.0, 301), None)):
        for a, b in ((one, replace(one, weights=weights, groups=groups)), (replace(one, weights=weights, groups=groups), one)):
            differences = measured([a, b], 20, delong_holds(a, Options()), Options())["differences"]
            assert {each["value"] for each in differences.values()} == {0}


def test_two_runs_that_keep_other_rows_are_not_compared_though_their_labels_are_the_same(runs, other_columns, tmp_path, monkeypatch):
    """Of rows 1 and 2, both clicked, each has no weight for another one."""
    alone_in_process(monkeypatch)
    table = clicks(300).set_column(0, "click", [[1, 1] + [0, 1] * 149])
    table = table.set_column(table.column_names.index("w"), "w", [[None] + [1] * 299]).append_column("v", [[1, None] + [1] * 298])
    logs = write_logs(tmp_path / "logs.csv", table)
    with pytest.raises(InputError, match="do not keep the same rows and labels of this data, as .*; give rows that both can use"):
        evaluate(runs[0]["run"], data=logs, against=other_columns, options=Options(max_reject_rate=1, **QUICK))


def test_rows_of_which_none_counts_are_one_line_that_names_the_data(runs, tmp_path, monkeypatch):
    alone_in_process(monkeypatch)
    table, run, options = clicks(50), runs[0]["run"], Options(max_reject_rate=1, **QUICK)
    bad = write_logs(tmp_path / "bad.csv", table.set_column(0, "click", [["maybe"] * 50]))
    line = f"^--data {bad}: none of 50 rows can be used by {run}; the first: {bad} row 1: column click: 'maybe' is not 0 or 1"
    with pytest.raises(InputError, match=line):
        evaluate(run, data=bad, options=replace(options, by=("site",)))
    light = write_logs(tmp_path / "light.csv", table.set_column(table.column_names.index("w"), "w", [[0] * 50]))
    with pytest.raises(InputError, match=f"^{light}: all 50 rows have weight 0, so no metric is defined; give others with --data"):
        evaluate(run, data=light, options=options)


def test_of_several_labels_the_one_asked_for_is_evaluated(tmp_path):
    data = choosy(tmp_path)["mmoe"]
    each = config(data, tmp_path, model=to_dict(model_config("mmoe")))
    logits, labels = train(each)["valid"], rows_of(data, "valid")["label"].combine_chunks().flatten().to_numpy().reshape(-1, 2)
    for place, name in enumerate(("like", "love")):
        found = evaluate(each.run.folder, options=Options(label=name, **QUICK))
        assert found["metrics"]["auc"]["value"] == pytest.approx(auc(logits[:, place], labels[:, place]), abs=1e-4)
        assert found["positives"] == labels[:, place].sum() and found["label"] == name


def test_what_is_asked_for_in_vain_is_said_in_one_line(runs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "Invalid value for '--seed'" in CliRunner().invoke(app, ["evaluate", runs[0]["run"], "--seed", "-1"]).output
    for options, line in (
        (Options(by=("sight",)), "--by sight: the dataset has group, price_log_square.*; did you mean site\\?$"),
        (Options(by=("age",)), "--by age: age is numeric, and a slice is one value of a categorical field; the dataset has group"),
        (Options(label="love"), "--label love: the run predicts label"),
        (Options(device="cuda"), "--device cuda: there is no GPU here that torch can use; leave the option out"),
    ):
        with pytest.raises(InputError, match=line):
            evaluate(runs[0]["run"], options=options)
    with pytest.raises(InputError, match="--split test: .* has train, valid"):
        evaluate(runs[0]["run"], split="test")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--output .*file/out cannot be written: Not a directory; make room or name another folder"):
        write({}, str(tmp_path / "file/out"))


def found_with(bins: list[Bin]) -> dict:
    """What `evaluate` finds, as far as its page needs it."""
    about = {"model": "lr", "split": "valid", "rows": 9, "data": "data", "positives": 0, "checkpoint": "c", "precision": "fp32"}
    about |= {
        "resamples": 20,
        "slice_resamples": 20,
        "unit": "row",
        "metrics": {"auc": {"value": 0.5, "low": 0.4, "high": 0.6}},
        "slices": {},
    }
    return about | {"calibration_curve": [asdict(one) for one in bins], "expected_calibration_error": 0.1}


def test_the_page_and_the_terminal_say_where_each_kind_of_interval_is_from():
    found = found_with([Bin(9, 9.0, 0.1, 0.1, 0.0, 0.5)]) | {"resamples": 1_000, "slice_resamples": 200}
    alone = "Intervals at 95 %: of metrics from 1,000 resamples of rows, of the calibration curve Wilson's, over rows, taken as independent"
    assert about_intervals(found) == alone and f"{alone}." in page(found)
    found |= {"unit": "group", "slices": {"site": []}, "differences": {"auc": {"p": 0.1}}}
    drawn = "1,000 resamples of groups (of slices at most 200), of the AUC difference DeLong's"
    assert drawn in about_intervals(found) and about_intervals(found).endswith("Wilson's, over as many rows as the groups are worth")


@pytest.mark.parametrize("exact", [True, False])
def test_a_column_of_p_stands_only_where_the_auc_difference_has_one_and_its_absence_is_explained(exact):
    one = {"value": 0.5, "low": 0.4, "high": 0.6}
    found = found_with([Bin(9, 9.0, 0.1, 0.1, 0.0, 0.5)]) | {"run": "runs/a", "metrics": {"auc": one, "logloss": one}}
    found |= {"against": {"run": "runs/b", "checkpoint": "c", "metrics": found["metrics"]}}
    found["differences"] = {"auc": one | ({"p": 0.25} if exact else {}), "logloss": one}
    columns = {column.header: [*column.cells] for column in metrics_table(found).columns}
    assert columns.get("p") == (["0.25", ""] if exact else None) and ("difference_p" in page(found)) == exact
    assert [row.get("difference_p") for row in metric_rows(found)] == [0.25 if exact else None, None]
    text = about_intervals(found)
    assert "of metrics and of paired differences from 20 resamples of rows" in text and text in page(found)
    assert ("of the AUC difference DeLong's" in text) == exact
    assert ("no p value, as DeLong's test takes single rows of equal weight" in text) != exact


def test_rows_without_a_positive_have_a_page_and_a_picture_too(tmp_path):
    write(found_with([Bin(4, 4.0, 0.1, 0.0, 0.0, 0.6), Bin(5, 5.0, 0.2, 0.0, 0.0, 0.5)]), str(tmp_path / "out"))
    assert "Expected calibration error" in (tmp_path / "out/README.md").read_text()
    assert (tmp_path / "out/calibration.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_or_told_leaves_nothing(tmp_path, monkeypatch):
    for name in ("picture", "page"):
        with monkeypatch.context() as patch:
            patch.setattr(evaluation_page, name, lambda *arguments: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                write(found_with([Bin(9, 9.0, 0.1, 0.1, 0.0, 0.5)]), str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["README.md", "metrics.csv", "calibration.csv", "calibration.png", "slices-site.csv"])
def test_a_file_that_evaluate_did_not_write_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    line = f"--output {tmp_path} holds files that evaluate did not write (such as {name}); name a new or empty folder"
    found = CliRunner().invoke(app, ["evaluate", "nowhere", "--output", str(tmp_path)])
    assert str(found.exception) == line, "before anything is evaluated"
    with pytest.raises(InputError, match=re.escape(line)):
        write(found_with([Bin(9, 9.0, 0.1, 0.1, 0.0, 0.5)]), str(tmp_path))
    assert contents(tmp_path) == {name: sha256(b"mine").hexdigest()}


def test_an_evaluation_replaces_another_and_lies_beside_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for rows, by in ((9, "site"), (8, "device")):
        slices = {by: [{"value": "a", "rows": rows, "positives": 1.0, "metrics": {}}]}
        write(found_with([Bin(rows, 9.0, 0.1, 0.1, 0.0, 0.5)]) | {"slices": slices}, str(tmp_path))
        assert table(tmp_path / "calibration.csv")[0]["rows"] == str(rows)
        assert [path.name for path in tmp_path.glob("slices-*")] == [f"slices-{by}.csv"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_value_stays_in_its_cell_whatever_it_holds():
    """As a parser of Markdown sees it."""
    text = markdown_table([{"value|s": value, "rows": 3} for value in ("a|b\nc", "d\\|e\\")])
    cells = [token.children for token in MarkdownIt("commonmark").enable("table").parse(text) if token.type == "inline"]
    shown = ["".join(part.content for part in cell) for cell in cells]
    assert shown == ["value|s", "rows", "a|b c", "3", "d\\|e\\", "3"]


def test_the_folder_holds_every_number_and_a_picture(runs, tmp_path):
    found = evaluate(runs[0]["run"], against=runs[1]["run"], options=Options(by=("device",), bins=5, unit="group", **QUICK))
    write(found, str(tmp_path / "out"))
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["metrics"]["auc"] == found["metrics"]["auc"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "evaluation.json", "metrics.csv", "calibration.csv", "calibration.png", "slices-device.csv",
    }  # fmt: skip
    lines = table(tmp_path / "out/metrics.csv")
    assert float(lines[0]["difference_value"]) == found["differences"]["auc"]["value"]
    by_device = table(tmp_path / "out/slices-device.csv")
    assert len(by_device) == 10
    for row, line in zip(by_device, found["slices"]["device"], strict=True):
        for name, one in line["differences"].items():
            assert [float(row[f"{name}_difference_{key}"]) for key in one] == pytest.approx([*one.values()], nan_ok=True)
        assert float(row["auc_against_value"]) == pytest.approx(line["against"]["metrics"]["auc"]["value"], nan_ok=True)
    curve = np.array([[float(x) for x in row.values()] for row in table(tmp_path / "out/calibration.csv")])
    assert curve.shape == (5, 6) and curve[:, 0].sum() == found["rows"] and curve[:, 1].sum() == sum(clicks(1500)["w"].to_pylist()[1200:])
    of_rows = evaluate(runs[0]["run"], options=Options(bins=5, **QUICK))["calibration_curve"]
    assert [one["low"] for one in found["calibration_curve"]] != [one["low"] for one in of_rows]
    text = (tmp_path / "out/README.md").read_text()
    assert "Against" in text and "## By device" in text and "resamples of groups" in text
