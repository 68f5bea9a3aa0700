"""Benchmarks measure what they say: order, ratios, bounds, equal models; not how fast anything is."""

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sml_dist.bench import child
from sml_dist.bench.case import Case, measure
from sml_dist.bench.cases import CASES
from sml_dist.bench.in_memory import grown, spaced
from sml_dist.bench.peers import flattened
from sml_dist.bench.plain import PlainDNN, ready
from sml_dist.bench.report import markdown, plot
from sml_dist.bench.run import run
from sml_dist.bench.workplace import BATCH, DENSE, DIM, FIELDS, Workplace
from sml_dist.cli import app
from sml_dist.cli.bench import earlier
from sml_dist.data.dataset import read_manifest, read_rows, row_groups
from sml_dist.models.fields import FieldShape
from sml_dist.models.zoo import build

MACHINE = {"processor": "none", "cores": 2, "load": [0.0], "time": "now", "versions": {}}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("bench"))


def case(readings: dict[str, list[float]], order: list[str], **options) -> Case:
    def arm(name):
        values = iter(readings[name])
        return lambda: order.append(name) or next(values)

    @contextlib.contextmanager
    def arms(place):
        yield {name: arm(name) for name in readings}

    return Case("made", "made up", "samples/s", arms, warm_up=False, **options)


def test_arms_are_read_in_turn_and_every_other_round_backwards(place):
    order: list[str] = []
    measure(case({"a": [1, 2, 3], "b": [1, 2, 3]}, order), place, rounds=3)
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_a_ratio_is_one_of_readings_of_the_same_round(place):
    """So what slows a whole round, here tenfold, does not show in it."""
    made = case({"a": [20, 2, 22], "b": [10, 1, 10]}, [], ratios={"a_over_b": ("a", "b"), "a_over_peer": ("a", "peer")})
    found = measure(made, place, rounds=3)
    assert found["ratios"] == {"a_over_b": 2} and found["ranges"]["a_over_b"] == [2, 2.2] and found["arms"] == {"a": 20, "b": 10}


def test_a_report_says_which_bound_is_missed_and_what_moved(place, tmp_path):
    def result(values):
        made = case({"a": values, "b": [10, 10, 10]}, [], ratios={"r": ("a", "b")}, at_least={"r": 0.9}, at_most={"b": 11})
        return {"machine": MACHINE, "cases": [measure(made, place, rounds=3) | {"seconds": 1.0}]}

    old, new = result([9, 10, 11]), result([8, 8, 8])
    text = markdown(new, old)
    assert "≥ 0.9: missed" in text and "≤ 11: holds" in text
    assert "| a | 8 | 8–8 |  | 10 | **-20.0%** |" in text and "| b | 10 | 10–10 | ≤ 11: holds | 10 | +0.0% |" in text
    plot(new, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 5_000


def test_every_bound_is_on_a_ratio_or_stands_where_an_arm_can():
    for each in CASES.values():
        bounds = {*each.at_least, *each.at_most}
        assert each.name in ("prepare", "start") or bounds <= each.ratios.keys(), each.name


def test_the_hand_written_model_has_as_many_weights_as_ours(place):
    shape = FieldShape(fields=FIELDS, dim=DIM, dense=DENSE)
    ours = build(place.config("nowhere").model, shape)
    theirs = PlainDNN(rows=1).tower
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())


def test_peers_and_the_hand_written_model_get_the_rows_that_we_get(place):
    data = place.dataset(2 * BATCH, table_rows=2_000)
    manifest = read_manifest(data)
    ours = [row for path, group, _ in row_groups(manifest.splits["train"]) for row in read_rows(data, path, group).to_pylist()]
    flat = pq.read_table(sorted(flattened(place, data).glob("*.parquet"))).to_pylist()
    for row, theirs in zip(ours, flat, strict=True):
        assert [theirs[field.name] for field in manifest.single] == row["ids"]
        assert [theirs[name] for name in manifest.dense] == row["dense"] and theirs["label"] == row["label"]
    ids, dense, label = ready(data, manifest)[1]
    assert label.tolist() == [row["label"] for row in ours[BATCH : 2 * BATCH]]
    assert ids[5, 0] == ours[BATCH + 5]["ids"][0] and ids[5, 1] == ours[BATCH + 5]["ids"][1] + manifest.fields[0].rows


def test_grown_tables_are_touched_in_as_many_rows(place):
    data = place.dataset(2 * BATCH, table_rows=2_000)
    manifest = read_manifest(data)
    path, group, _ = next(row_groups(manifest.splits["train"]))
    table = read_rows(data, path, group)
    ids, far = (t["ids"].combine_chunks().flatten().to_numpy() for t in (table, spaced(table, 64)))
    assert (far == ids * 64).all()
    assert [field.rows for field in grown(manifest, 64).fields] == [64 * field.rows for field in manifest.fields]


def test_one_case_as_json_is_one_object_with_its_ratios(tmp_path):
    found = json.loads(CliRunner().invoke(app, ["bench", "memory", "--rounds", "1", "--json", "--output", str(tmp_path)]).stdout)
    assert found["case"] == "memory" and found["arms"]["copy"] > 0 and found["ratios"] == {} and found["machine"]["cores"]
    assert json.loads(Path(tmp_path / "bench.json").read_text())["cases"][0]["arms"] == found["arms"]
    assert earlier(str(tmp_path / "bench.json")) and earlier(None) is None
    with pytest.raises(SystemExit, match="2"):
        earlier(str(tmp_path / "bench.md"))


RESULT = {"case": "c", "arms": {"a": 1.0}, "ratios": {"r": 2.0}, "ranges": {"a": [1, 1], "r": [2, 2]}}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is no bench.json .Expecting value"),
        ("[1]", "is no bench.json"),
        ('{"cases": []}', "is no bench.json .cases: .* at least 1 item"),
        (json.dumps({"cases": [{"case": "c", "arms": {"a": 1}, "ranges": {}}]}), "is no bench.json .cases.0.ratios: field required"),
        (json.dumps({"cases": [RESULT | {"arms": {"a": "1"}}]}), "is no bench.json .cases.0.arms.a: .*number"),
        (json.dumps({"cases": [RESULT | {"ranges": {"a": [1, 1]}}]}), "is no bench.json .cases.0: no range of r"),
    ],
)
def test_what_cannot_be_compared_with_is_refused_before_anything_is_measured(tmp_path, monkeypatch, capfd, text, fault):
    (tmp_path / "old.json").write_text(text)
    monkeypatch.setattr("sml_dist.bench.run.run", lambda *_: pytest.fail("measured"))
    found = CliRunner().invoke(app, ["bench", "memory", "--compare", str(tmp_path / "old.json")])
    assert found.exit_code == 2 and re.search(f"--compare .*old.json {fault}.*\n$", found.stderr), found.stderr


def test_a_result_of_any_case_of_ours_can_be_compared_with(tmp_path):
    shipped = sorted(Path(__file__).parent.glob("*.json"))
    assert shipped
    for path in shipped:
        old = earlier(str(path))
        assert markdown(old, old).count("+0.0%") == sum(len(case["arms"]) + len(case["ratios"]) for case in old["cases"])


def test_what_was_measured_is_kept_whatever_becomes_of_the_pages(tmp_path, monkeypatch):
    def fails(*_):
        raise KeyError

    monkeypatch.setattr("sml_dist.bench.report.markdown", fails)
    CliRunner().invoke(app, ["bench", "memory", "--rounds", "1", "--output", str(tmp_path)])
    assert json.loads((tmp_path / "bench.json").read_text())["cases"][0]["case"] == "memory"


def test_a_case_that_fails_takes_no_other_with_it(tmp_path):
    said: list[str] = []
    found = run(["no such case", "memory"], tmp_path, 1, said.append)
    assert found["failed"] == {"no such case": "KeyError: 'no such case'"} and [each["case"] for each in found["cases"]] == ["memory"]
    assert said == ["measuring no such case", "no such case failed: KeyError: 'no such case'", "measuring memory"]


def test_what_lies_in_the_output_folder_stays_there(tmp_path, monkeypatch):
    """A case may do in its place what it wants, and does: `runs` in a folder that is not the bench's own are someone's runs."""
    theirs = [tmp_path / name for name in ("runs/run/metrics.jsonl", "scored/a", "prepared/a", "data/a", "memory.json", "start.yaml")]
    for file in theirs:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("theirs")

    @contextlib.contextmanager
    def clearing(place):
        for path in place.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield {"copy": lambda: 1.0}

    monkeypatch.setitem(child.CASES, "memory", dataclasses.replace(CASES["memory"], arms=clearing))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: child.main(*command[command.index("memory") :]))
    assert run(["memory"], tmp_path, 1)["cases"][0]["arms"] == {"copy": 1.0}
    assert all(file.is_file() and file.read_text() == "theirs" for file in theirs)
