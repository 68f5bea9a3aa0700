"""Sinks follow metrics.jsonl: what W&B and TensorBoard hold is what was trained, and nothing that they do reaches training."""

import contextlib
import http.server
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from sml_dist.cli.sweeps import sweep
from sml_dist.cli.training import train
from sml_dist.config.run import RunConfig, parse
from sml_dist.held import held
from sml_dist.review import follow
from sml_dist.review.follow import track_export, tracked, tracked_sweep
from sml_dist.review.lines import scalars
from sml_dist.spec import InputError
from sml_dist.train.alone import train_alone
from tests.review import wandb_file
from tests.review.folders import SPACE, run_config, write_run, write_sweep
from tests.tune.sweeps import write_sweep as write_trials


@pytest.fixture(scope="module")
def dataset(synthetic) -> str:
    return synthetic(20_000, fields=4, dense=2, table_rows=100)


def config(dataset: str, storage: Path, **train) -> RunConfig:
    return parse(
        {
            "run": {"name": "a", "storage": str(storage)},
            "data": {"path": dataset, "streams": 2},
            "model": {"name": "dnn", "tower": {"hidden": [16, 8]}},
            "embedding": {"dim": 4},
            "train": {
                "global_batch_size": 256,
                "epochs": 2,
                "precision": "fp32",
                "threads": 1,
                "health_every_steps": 10,
                "eval_every_steps": 40,
                **train,
            },
            "tracking": {"wandb": {"project": "ctr", "group": "g", "artifacts": True}, "tensorboard": True},
        }
    )


def files(run: Path) -> list[Path]:
    """What W&B wrote, the oldest first; the last block of a file may come after its run was finished, so W&B is ended first."""
    import wandb

    wandb.teardown()
    return sorted(run.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)


def test_a_run_killed_and_started_again_is_one_wandb_run_that_holds_every_step_once(dataset, tmp_path):
    said: list[str] = []
    with contextlib.suppress(KeyboardInterrupt), tracked(config(dataset, tmp_path), said.append):
        train_alone(config(dataset, tmp_path, max_steps=70, checkpoint_every_steps=30))
        raise KeyboardInterrupt
    lines = (tmp_path / "a/metrics.jsonl").read_text().splitlines()
    for checkpoint in sorted((tmp_path / "a/checkpoints").glob("step-*"))[-1:]:  # the newest is lost: its steps are done again
        subprocess.run(["rm", "-r", str(checkpoint)], check=True)
    with tracked(config(dataset, tmp_path), said.append):
        summary = train_alone(config(dataset, tmp_path, max_steps=100))
    first, second = files(tmp_path / "a")
    assert wandb_file.run_of(first).run_id == wandb_file.run_of(second).run_id
    assert wandb_file.run_of(first).run_group == "g" and wandb_file.run_of(first).project == "ctr"
    steps = [row["_step"] for path in (first, second) for row in wandb_file.history(path)]
    assert steps == sorted(set(steps))
    assert max(row["_step"] for row in wandb_file.history(first)) == 70 < min(row["_step"] for row in wandb_file.history(second))

    rows = {row["_step"]: row for path in (first, second) for row in wandb_file.history(path)}
    written = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in written if line.get("split") == "valid" and line["step"] > 70]
    assert evaluations and all(rows[line["step"]]["valid/auc"] == pytest.approx(line["auc"]) for line in evaluations)
    health = [line for line in written if line.get("event") == "health" and line["step"] > 70]
    assert health and all(rows[line["step"]]["health/cosine/head.1"] == pytest.approx(line["cosine/head.1"]) for line in health)
    assert any("train/loss" in row for row in rows.values()) and len(lines) > 5

    held = wandb_file.config(second)
    assert held["code"] == json.loads((tmp_path / "a/code.json").read_text())
    assert held["model"]["name"] == "dnn" and len(held["dataset"]["sha256"]) == 64 and held["plan"][0]["table"].startswith("C")
    last = rows[summary["steps"]]
    assert last["rows_seen"] == summary["rows_seen"]
    for name in ("sharding plan", "fields", "events"):
        assert last[f"tables/{name}/_type"] == "table-file", sorted(last)
    drawn = {key.removeprefix("curves/").split("_table")[0] for key in last if key.startswith("curves/")}
    assert drawn == {f"{split} {curve}" for split in ("valid", "test") for curve in ("roc", "pr", "calibration")}
    (model,) = (r.artifact for r in wandb_file.records(second) if r.HasField("artifact") and r.artifact.type == "model")
    assert "best" in model.aliases and json.loads(model.metadata)["dataset"] == held["dataset"]["sha256"]
    assert len(said) == 2 and all("offline" in line for line in said)


def test_a_yes_or_a_no_in_a_line_is_no_scalar():
    assert scalars({"step": 3, "split": "valid", "auc": 0.7, "rows": 9, "final": True}) == {"valid/auc": 0.7, "valid/rows": 9}


def test_tensorboard_holds_the_scalars_of_every_line(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    folder = write_run(tmp_path, "a", steps=100)
    with tracked(with_tracking(tmp_path, tensorboard=True), print):
        pass
    (path,) = (folder / "tensorboard").glob("events.*")
    data, at, seen = path.read_bytes(), 0, {}
    while at < len(data):  # TFRecord: length, its checksum, an event, its checksum
        length = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length
        for value in event.summary.value:
            seen[value.tag, event.step] = value.simple_value
    assert seen["valid/auc", 100] == pytest.approx(0.8 - 0.1 * 2.718281828 ** (-100 / 99), abs=1e-5)
    assert ("health/row_norm/C26", 20) in seen and ("train/loss", 4) in seen


@pytest.mark.parametrize("torn", [b'{"step": 60, "lo{"step": 60}', b'{"step": 60, "\xff\xfe', b"3"])
def test_a_sink_gets_the_lines_around_one_that_is_torn(tmp_path, monkeypatch, torn):
    folder, taken, said = write_run(tmp_path, "a", steps=100), [], []
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:5], torn, *lines[5:], b""]))

    class Keeps:
        def __init__(self, *_):
            pass

        def add(self, line):
            taken.append(line)

        def finish(self, *, failed):
            pass

    monkeypatch.setattr(follow, "TensorBoard", Keeps)
    with tracked(with_tracking(tmp_path, tensorboard=True), said.append):
        pass
    assert taken == [json.loads(line) for line in lines] and not said


@pytest.mark.parametrize(("command", "file", "folder"), [(train, "base.yaml", "s/trials/00000"), (sweep, "sweep.yaml", "s")])
def test_a_command_on_a_folder_that_another_writes_starts_no_sink(dataset, tmp_path, monkeypatch, command, file, folder):
    """Its own would end the other's W&B run."""
    run = write_run(tmp_path / "s/trials", "00000", steps=100, finished=False)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("tensorboard: false", "tensorboard: true"))
    (tmp_path / "s/trials.jsonl").write_text('{"id": 0, "params": {}, "run": "trials/00000"}\n')
    write_trials(tmp_path, dataset, base={"run": {"name": run.name, "storage": str(run.parent)}, "tracking": {"tensorboard": True}})
    started: list[tuple] = []
    monkeypatch.setattr(follow, "TensorBoard", lambda *given: started.append(given))
    monkeypatch.setattr("sml_dist.session.ray_session", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0, "object_store_memory": 1e9})
    for module in ("sml_dist.train.launch", "sml_dist.tune.sweep"):
        monkeypatch.setattr(f"{module}.held", lambda path, *_: held(path, 0.1))
    with held(tmp_path / folder), pytest.raises(InputError, match="is being written by another command"):
        command(str(tmp_path / file))
    assert not started and not (run / "sent_tensorboard.json").exists()


def with_tracking(storage: Path, **tracking) -> RunConfig:
    from sml_dist.spec import to_dict

    return parse(to_dict(run_config(storage, "a")) | {"tracking": tracking})


def followed(storage: Path, **wandb) -> list[str]:
    """What the user hears while W&B follows a run."""
    said: list[str] = []
    with tracked(with_tracking(storage, wandb={"project": "ctr", **wandb}), said.append):
        pass
    return said


def test_the_trials_of_a_sweep_are_a_group_that_names_its_space(tmp_path):
    sweep = write_sweep(tmp_path, trials=2)
    write_run(sweep / "trials", "00001", steps=100, seed=1)
    for path in sweep.glob("trials/*/config.yaml"):
        path.write_text(path.read_text().replace("wandb: null", "wandb: {project: ctr}"))
    for _ in range(2):  # the second time all that has ended is sent
        with tracked_sweep(str(sweep), print):
            pass
    written = [path for trial in ("00000", "00001") for path in files(sweep / "trials" / trial)]
    assert len(written) == len({wandb_file.run_of(path).run_id for path in written}) == 2
    for path in written:
        assert wandb_file.run_of(path).run_group == "sweep"
        assert set(wandb_file.config(path)["sweep"]["space"]) == set(SPACE)
        assert len(wandb_file.history(path)) == 25


@pytest.mark.parametrize("status", ["finished", "stopped", "cut"])
def test_wandb_has_of_a_trial_what_the_sweep_ranks_it_by_over_the_rows_trained_on(tmp_path, status):
    sweep = write_sweep(tmp_path, trials=1)
    record, run = json.loads((sweep / "trials.jsonl").read_text()), sweep / "trials/00000"
    (sweep / "trials.jsonl").write_text(json.dumps(record | {"status": status}))
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("wandb: null", "wandb: {project: ctr}"))
    worse = json.loads((run / "metrics.jsonl").read_text().splitlines()[-2]) | {"step": 101, "auc": 0.6, "logloss": 0.9}
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(worse) + "\n")
    if status != "finished":
        (run / "summary.json").unlink()
    with tracked_sweep(str(sweep), print):
        pass
    (path,) = files(run)
    found = wandb_file.summary(path)
    assert found["trial"] == {"status": status, "value": record["value"]}
    assert 0.7 < found["valid/auc"]["max"] < 0.8 and found["valid/logloss"]["min"] == 0.4
    axes = {r.metric.name or r.metric.glob_name: r.metric.step_metric for r in wandb_file.records(path) if r.HasField("metric")}
    assert axes["*"] == axes["valid/auc"] == "rows_seen"
    assert all(row["rows_seen"] == 1024 * row["_step"] for row in wandb_file.history(path) if row["_step"] <= 100)


def test_a_trial_that_failed_before_is_followed_when_it_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.05)
    sweep = write_sweep(tmp_path, trials=1)
    config, books = sweep / "trials/00000/config.yaml", sweep / "trials.jsonl"
    config.write_text(config.read_text().replace("tensorboard: false", "tensorboard: true"))
    again = json.loads(books.read_text()) | {"status": "finished"}
    books.write_text(json.dumps(again | {"status": "failed", "attempts": 1}))
    with tracked_sweep(str(sweep), print):
        time.sleep(0.3)
        assert not (sweep / "trials/00000/sent_tensorboard.json").exists()
        books.write_text(json.dumps(again | {"attempts": 2}))
    assert json.loads((sweep / "trials/00000/sent_tensorboard.json").read_text())["finished"]


@pytest.mark.parametrize("name", ["", "checkpoints/step-000000060"])
def test_an_export_joins_the_wandb_run_of_what_it_was_made_of(tmp_path, name):
    folder, export = write_run(tmp_path, "a", steps=100), tmp_path / "export"
    (folder / name).mkdir(parents=True, exist_ok=True)
    export.mkdir()
    (export / "card.md").write_text("a model")
    track_export(str(folder / name), str(export), print)
    assert not files(folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("wandb: null", "wandb: {project: ctr, artifacts: true}"))
    track_export(str(folder / name), str(export), print)
    (path,) = files(folder)
    (artifact,) = (r.artifact for r in wandb_file.records(path) if r.HasField("artifact"))
    assert artifact.type == "export" and [entry.path for entry in artifact.manifest.contents] == ["card.md"]
    assert wandb_file.run_of(path).run_id == json.loads((folder / "wandb.json").read_text())["id"]


@pytest.mark.parametrize("text", ["run: [1", "run: {name: a}", "\xff"])
def test_an_export_of_a_run_with_a_damaged_configuration_is_told_of_and_stands(tmp_path, text):
    folder, said = write_run(tmp_path, "a", steps=100), []
    (folder / "config.yaml").write_bytes(text.encode("latin-1"))
    track_export(str(folder), str(tmp_path), said.append)
    (line,) = said
    assert line.startswith("the export is no W&B artifact: ") and "\n" not in line


def test_a_trial_with_a_damaged_configuration_does_not_end_the_following_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.05)
    sweep = write_sweep(tmp_path, trials=1)
    config = sweep / "trials/00000/config.yaml"
    whole = config.read_text().replace("tensorboard: false", "tensorboard: true")
    config.write_text("run: [1")
    with tracked_sweep(str(sweep), print):
        time.sleep(0.3)
        config.write_text(whole)
    assert json.loads((sweep / "trials/00000/sent_tensorboard.json").read_text())["finished"]


@contextlib.contextmanager
def server_that_refuses():
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_key_that_the_server_refuses_is_told_once_and_the_run_is_kept_offline(tmp_path, monkeypatch):
    folder = write_run(tmp_path, "a", steps=100)
    with server_that_refuses() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        refused, offline = followed(tmp_path)
    assert "Failed to authenticate" in refused and "401" in refused and "wandb sync" in offline
    assert len(wandb_file.history(files(folder)[0])) == 25


def test_wandb_that_its_own_variable_disables_is_not_started_unless_the_mode_is_given(tmp_path, monkeypatch):
    folder = write_run(tmp_path, "a", steps=100)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not followed(tmp_path) and not (folder / "wandb.json").exists()
    assert followed(tmp_path, mode="offline") and files(folder)


def test_without_a_network_the_run_is_kept_offline(tmp_path, monkeypatch):
    folder = write_run(tmp_path, "a", steps=100)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    away, offline = followed(tmp_path)
    assert "Failed to authenticate with http://127.0.0.1:1" in away and "wandb sync" in offline
    assert len(wandb_file.history(files(folder)[0])) == 25


def test_a_full_disk_under_wandb_is_one_line_and_does_not_stop_training(dataset, tmp_path, monkeypatch, capfd):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting a small file system needs root and a kernel that lets it")
    try:
        (disk / "filler").write_bytes(b"0" * 60_000)
        monkeypatch.setenv("WANDB_DIR", str(disk))
        said: list[str] = []
        with tracked(config(dataset, tmp_path), said.append):
            summary = train_alone(config(dataset, tmp_path, max_steps=40))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
    assert summary["steps"] == 40 and "Traceback" not in capfd.readouterr().err
    assert len(said) == 2 and "wandb stopped, training does not: " in said[1] and "No space left" in said[1]


def test_a_sink_that_fails_is_told_once_and_left_alone(tmp_path, monkeypatch):
    write_run(tmp_path, "a", steps=100)

    class Fails:
        def __init__(self, *_):
            pass

        def add(self, line):
            raise ValueError("no more\nroom")

    monkeypatch.setattr(follow, "TensorBoard", Fails)
    said: list[str] = []
    with tracked(with_tracking(tmp_path, tensorboard=True), said.append):
        pass
    assert said == ["tensorboard stopped, training does not: no more room"]
