"""Whole sweeps on a real Ray: what they leave, what they do again and what not, and that nothing of them stays behind."""

import contextlib
import json
import time
from pathlib import Path

import pytest
import ray
from omegaconf import OmegaConf

from sml_dist.cli.sweeps import sweep
from sml_dist.config.run import load
from sml_dist.data.synthetic import synth
from sml_dist.held import held
from sml_dist.session import check_cpus
from sml_dist.spec import InputError, RunError
from sml_dist.train.alone import train_alone
from sml_dist.train.in_process import alone
from sml_dist.train.loop import Stopped
from sml_dist.train.warm import open_checkpoint
from sml_dist.tune.blueprint import Blueprint
from sml_dist.tune.donation import donate, steps_in, take
from sml_dist.tune.sweep import begin, carry_out, cpus_of, groups_at_once, placed, room, run, tidy
from sml_dist.tune.trial import in_actor
from tests.faults.runs import Striker
from tests.tune.sweeps import SPACE, trials, write_sweep

BAD = 1e30  # a rate that no training survives


def placement_groups() -> list[str]:
    return [group["state"] for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]


def wait_until_free(cpus: float) -> None:
    """Until all CPUs are free, which takes Ray some seconds; pytest's own limit ends it."""
    while ray.available_resources().get("CPU", 0) < cpus:
        time.sleep(0.1)


@pytest.fixture(scope="module")
def swept(ray_local, rows, tmp_path_factory) -> tuple[str, dict, list]:
    """Seven trials under ASHA, one of which must fail: the sweep's file, its result and the events that were shown."""
    space = SPACE | {"train.lr": {"choice": [0.001, 0.003, BAD]}}
    path = write_sweep(
        tmp_path_factory.mktemp("asha"), rows, space=space, trials=7, points=[{}, {"train.lr": BAD}], concurrent=2, keep=2,
        search={"name": "random", "seed": 3}, scheduler={"name": "asha", "grace": 1, "reduction": 2},
    )  # fmt: skip
    events: list[tuple[str, int]] = []
    return path, run(path, show=lambda event, record: events.append((event, record.id))), events


def test_a_sweep_ends_with_a_configuration_that_trains(swept):
    path, found, _ = swept
    folder, records = Path(found["folder"]), trials(Path(found["folder"]))
    assert [record["id"] for record in records] == list(range(7)) and records[0]["point"] == 0
    values = [record["value"] for record in records if record["value"] is not None]
    assert found["best"]["value"] == max(values) and found["default"] == records[0]["value"]
    best = load(str(folder / "best.yaml"))
    assert best.run.name == "s-best" and best == Blueprint.read(path).best(found["best"]["params"])
    assert f"Best: trial {found['best']['id']}" in (folder / "README.md").read_text()


def test_the_scheduler_stops_trials_and_a_failed_one_is_told_of(swept):
    _, found, _ = swept
    folder, records = Path(found["folder"]), trials(Path(found["folder"]))
    by_status = {status: [r for r in records if r["status"] == status] for status in ("finished", "stopped", "failed")}
    assert sum(map(len, by_status.values())) == 7 and all(by_status.values()), {k: len(v) for k, v in by_status.items()}
    assert all(r["history"][-1]["rows"] == 48_000 and r["summary"]["rows_seen"] == 48_000 for r in by_status["finished"])
    assert all(0 < r["history"][-1]["rows"] < 48_000 for r in by_status["stopped"])
    assert records[1]["status"] == "failed" and "bad steps in a row" in records[1]["error"] and records[1]["attempts"] == 1
    assert "trial 1 failed: 3 bad steps" in (folder / "README.md").read_text()
    kept = {path.parent.name for path in (folder / "trials").glob("*/checkpoints")}
    ranked = sorted((r for r in records if r["value"] is not None), key=lambda r: -r["value"])
    assert kept == {Path(r["run"]).name for r in (*ranked[:2], records[0])}  # the default, to compare the best with


def test_nothing_of_a_sweep_stays_behind(swept):
    _, found, _ = swept
    names = {path.name for path in Path(found["folder"]).iterdir()}
    assert names == {"sweep.yaml", "base.yaml", "data.json", "trials.jsonl", "trials", "best.yaml", "README.md"}
    assert not placement_groups()
    wait_until_free(8)


def test_a_sweep_that_is_done_runs_no_trial_again_but_one_that_failed_once(swept):
    path, found, _ = swept
    before, events = trials(Path(found["folder"])), []
    assert run(path, show=lambda event, record: events.append((event, record.id))) == found
    after, failed = trials(Path(found["folder"])), {record["id"] for record in before if record["status"] == "failed"}
    started = [id for event, id in events if event == "started"]
    assert len(started) == len(failed) and {*started} == failed and ("failed", 1) in events
    for was, now in zip(before, after, strict=True):
        assert now == was or (was["id"] in failed and (now["status"], now["attempts"], now["error"]) == ("failed", 2, was["error"]))


def test_where_all_trials_failed_the_command_fails_and_given_again_tries_them_anew(ray_local, rows, tmp_path):
    (tmp_path / "ill").mkdir()
    base, space = {"run": {"warm_start": str(tmp_path / "ill")}, "train": {"epochs": 1}}, {"embedding.lr": {"loguniform": [1e-3, 0.2]}}
    path = write_sweep(tmp_path, rows, base=base, space=space, trials=2)
    with pytest.raises(RunError, match=r"none of 2 trials has a value, all failed or .*s/README.md says of what; mend that"):
        sweep(path)
    assert [record["attempts"] for record in trials(tmp_path / "s")] == [1, 1]
    donor = load(str(tmp_path / "base.yaml"), ["run.name=ill", f"run.storage={tmp_path}", "run.warm_start=null"])
    train_alone(donor)
    assert run(path)["trials"] == {"finished": 2}
    for record in trials(tmp_path / "s"):
        assert record["attempts"] == 2 and record["error"] is None and [each["rows"] for each in record["history"]] == [8_000]


def test_a_sweep_that_another_command_runs_is_left_alone(swept):
    path, found, _ = swept
    with held(found["folder"]), pytest.raises(InputError, match="is being written by another command"):
        run(path)
    assert not (Path(found["folder"]) / "lock").exists()


def test_relative_paths_are_of_the_commands_folder_not_of_a_trials_process(ray_local, rows, tmp_path, monkeypatch):
    """Tune gives each trial's process a folder of its own."""
    (tmp_path / "data").symlink_to(rows)
    write_sweep(tmp_path, "data", base={"train": {"epochs": 1}}, trials=1, storage="sweeps")
    monkeypatch.chdir(tmp_path)
    found = run("sweep.yaml")
    assert found["trials"] == {"finished": 1} and (tmp_path / "sweeps/s/trials/00000/summary.json").exists()
    assert OmegaConf.load("sweeps/s/base.yaml").data.path == OmegaConf.load("sweeps/s/best.yaml").data.path == "data"


def test_a_sweep_does_not_go_on_over_another_dataset(rows, tmp_path):
    """Of the same name, made anew; also one that the space names. A folder that a kill left without data.json goes on."""
    for name in ("a", "b"):
        synth(4_000, str(tmp_path / name), fields=3, dense=2, table_rows=60)
    both = [str(tmp_path / name) for name in ("a", "b")]
    blueprint = Blueprint.read(write_sweep(tmp_path, both[0], space={"data.path": {"choice": both}}))

    def again() -> None:
        with contextlib.ExitStack() as stack:
            begin(blueprint, stack)

    again()
    (tmp_path / "s/data.json").unlink()
    again()
    again()
    synth(5_000, both[1], fields=3, dense=2, table_rows=60, overwrite=True)
    with pytest.raises(
        InputError, match=r"s holds a sweep over another dataset than .*/b now holds; choose another name, or remove the fol"
    ):
        again()


def test_a_trials_folder_keeps_nothing_of_ray_or_of_a_killed_process_unless_someone_works_there(tmp_path, monkeypatch):
    monkeypatch.setattr("sml_dist.tune.sweep.DYING_SECONDS", 0.2)
    for name in ("killed", "at work"):
        (tmp_path / name / "ray/1795813371878870424").mkdir(parents=True)
        (tmp_path / name / "lock").write_text("process 1")
        (tmp_path / name / "summary.json").touch()
    with held(tmp_path / "at work"):
        for name in ("killed", "at work", "absent"):
            tidy(tmp_path / name)
        assert {path.name for path in (tmp_path / "at work").iterdir()} == {"ray", "lock", "summary.json"}
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["summary.json"] and not (tmp_path / "absent").exists()


def test_a_budget_of_rows_cuts_trials_off_and_a_larger_one_takes_them_up(ray_local, rows, tmp_path):
    path = write_sweep(tmp_path, rows, trials=2, concurrent=1)
    run(path, ["rows=20000"])
    first = trials(tmp_path / "s")
    assert first[0]["status"] == "cut" and 16_000 < first[0]["history"][-1]["rows"] < 48_000
    run(path)
    again = trials(tmp_path / "s")
    assert [record["status"] for record in again] == ["finished", "finished"]
    assert again[0]["history"][: len(first[0]["history"])] == first[0]["history"] and again[0]["summary"]["restarts"] == 1
    assert [evaluation["rows"] for evaluation in again[0]["history"]] == [8_000 * epoch for epoch in range(1, 7)]


@pytest.mark.long
def test_a_trial_whose_process_dies_goes_on_in_another(ray_local, rows, tmp_path):
    path = write_sweep(tmp_path, rows, base={"train": {"epochs": 40}}, trials=1)
    striker = Striker(tmp_path / "s/trials/00000", seed=0, within=0.1, after_first_checkpoint=True)
    run(path)
    striker.over.set()
    (record,) = trials(tmp_path / "s")
    assert striker.struck is not None and record["status"] == "finished" and record["attempts"] == 2
    assert [evaluation["rows"] for evaluation in record["history"]] == [8_000 * epoch for epoch in range(1, 41)]


def test_what_is_taken_of_a_donor_is_its_tables_and_its_cursor_to_the_bit(rows, tmp_path):
    blueprint = Blueprint.read(write_sweep(tmp_path, rows))
    donor, taker = (blueprint.trial(id, {"embedding.lr": rate}) for id, rate in ((0, 0.05), (1, 0.01)))
    evaluations: list[dict] = []

    def to_the_third(evaluation: dict) -> bool:
        evaluations.append(evaluation)
        return len(evaluations) < 3

    with pytest.raises(Stopped):
        train_alone(donor, to_the_third)
    donated = donate(Path(donor.run.folder), tmp_path / "donors", 0)
    expected = tensors(donor.run.folder)
    train_alone(taker)
    assert tensors(taker.run.folder) != expected
    train_alone(donor)  # goes on, and prunes what it donated
    assert take(donated, Path(taker.run.folder), {}) == evaluations[-1]["step"]
    assert tensors(taker.run.folder) == expected and steps_in(Path(taker.run.folder) / "checkpoints") == steps_in(Path(donated["kept"]))
    summary = train_alone(taker)
    assert summary["restarts"] == 1 and summary["rows_seen"] == 48_000


def tensors(folder: str) -> dict[str, str]:
    """The hash of each data file of a run's newest checkpoint: tables, optimiser state, dense part."""
    with alone():
        return open_checkpoint(folder).manifest["files"]


def test_a_population_exploits_and_goes_on_from_the_donors_step(ray_local, rows, tmp_path):
    path = write_sweep(
        tmp_path, rows, trials=4, space={"embedding.lr": {"loguniform": [1e-5, 0.5]}, "train.lr": {"loguniform": [1e-6, 0.1]}},
        points=[{"embedding.lr": 1e-5, "train.lr": 1e-6}, {"embedding.lr": 0.1, "train.lr": 0.01}],
        scheduler={"name": "pbt", "interval": 1, "quantile": 0.5}, concurrent=2,
    )  # fmt: skip
    run(path)
    records = trials(tmp_path / "s")
    assert all(record["status"] == "finished" for record in records), records
    exploited = [record for record in records if record["exploits"]]
    assert exploited
    for record in exploited:
        lines = [json.loads(line) for line in (tmp_path / "s" / record["run"] / "metrics.jsonl").read_text().splitlines()]
        resumed = [line["step"] for line in lines if line.get("event") == "resumed"]
        assert record["exploits"][-1]["step"] in resumed
        assert record["value"] == record["summary"]["valid"]["auc"]
        config = OmegaConf.load(tmp_path / "s" / record["run"] / "config.yaml")
        assert config.embedding.lr == record["params"]["embedding.lr"] == record["exploits"][-1]["params"]["embedding.lr"]


def test_trials_at_once_leave_each_worker_its_resources_and_each_reader_its_own(rows, tmp_path):
    """A worker on a GPU has a CPU besides; readers have half of one each."""
    base = Blueprint.read(write_sweep(tmp_path, rows, base={"train": {"num_workers": 2, "device": "cuda"}})).base
    assert [groups_at_once(base, {"CPU": cpus, "GPU": 8.0}) for cpus in (6.0, 11.0, 12.0)] == [1, 1, 2]
    assert groups_at_once(base, {"CPU": 60.0, "GPU": 4.0}) == 2


def two_cpus(monkeypatch, **others: float) -> None:
    """A machine of so much, without a Ray."""
    there = {"CPU": 2.0, **others}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.cluster_resources", lambda: there)
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": there}])


@pytest.mark.parametrize(("asked", "cpus"), [({}, 1), ({"CPU": 1}, 1), ({"CPU": 2}, 2), ({"CPU": 0.5}, 1)])
@pytest.mark.parametrize("scheduler", ["none", "pbt"])
def test_a_trial_of_one_worker_that_asks_for_cpus_trains_in_an_actor_that_has_them(rows, tmp_path, monkeypatch, scheduler, asked, cpus):
    """And so a population takes turns on what is there, whatever its size."""
    two_cpus(monkeypatch)
    space, base = {"embedding.lr": {"uniform": [0.01, 0.1]}}, {"train": {"worker_resources": asked}}
    blueprint = Blueprint.read(write_sweep(tmp_path, rows, base=base, space=space, trials=4, scheduler={"name": scheduler}))
    assert in_actor(blueprint.trial(0, {"embedding.lr": 0.05}))
    trial, at_once = placed(blueprint)
    assert trial.default_resource_request({}).bundles == [{"CPU": cpus}] and at_once is None
    assert room(cpus_of(blueprint)) == 2 // cpus


def test_a_trial_that_asks_for_more_cpus_than_there_are_or_for_something_else_is_refused_by_the_key(rows, tmp_path, monkeypatch):
    two_cpus(monkeypatch, slot=1.0)
    space = {"embedding.lr": {"uniform": [0.01, 0.1]}}

    def refused(**train) -> str:
        path = write_sweep(tmp_path, rows, base={"train": train}, space=space, trials=4, scheduler={"name": "pbt"})
        with pytest.raises(InputError) as error:
            carry_out(Blueprint.read(path), 1, lambda *_: None)
        return str(error.value)

    assert "1 worker wants 9 CPU, and this machine has 2 that Ray sees; set fewer" in refused(worker_resources={"CPU": 9})
    assert refused(worker_resources={"slot": 1}).endswith("there is room for 1; lower trials or train.worker_resources")
    assert refused(num_workers=2).endswith("there is room for 1; lower trials or train.num_workers")


@pytest.mark.parametrize("scheduler", ["none", "pbt"])
def test_a_trial_for_which_no_node_is_large_enough_is_refused(ray_local, rows, tmp_path, scheduler, monkeypatch):
    space = {"embedding.lr": {"loguniform": [1e-5, 0.5]}}
    path = write_sweep(tmp_path, rows, space=space, cpus=9, scheduler={"name": scheduler})
    with pytest.raises(InputError, match="cpus 9: the largest node has 8, and Ray would wait for ever; lower it with --set cpus=8"):
        run(path)
    monkeypatch.setenv("RAY_ADDRESS", "a cluster, which may grow")
    check_cpus(9)


def test_a_population_that_has_no_room_side_by_side_is_refused(ray_local, rows, tmp_path):
    space = {"embedding.lr": {"loguniform": [1e-5, 0.5]}}
    path = write_sweep(tmp_path, rows, base={"train": {"num_workers": 2}}, space=space, trials=4, scheduler={"name": "pbt"})
    with pytest.raises(InputError, match="pbt: 4 trials go on side by side, and there is room for 1; lower trials"):
        run(path)


@pytest.mark.long
def test_trials_on_two_workers_are_stopped_and_free_what_they_held(ray_local, rows, tmp_path):
    base = {"train": {"num_workers": 2, "epochs": 4}, "data": {"reader_cpus": 0.25}}
    space = {"embedding.lr": {"choice": [0.05, 1e-6]}}
    path = write_sweep(
        tmp_path, rows, base=base, space=space, points=[{}, {"embedding.lr": 1e-6}], trials=2, concurrent=1,
        scheduler={"name": "asha", "grace": 1, "reduction": 2},
    )  # fmt: skip
    run(path)
    first, second = trials(tmp_path / "s")
    assert first["status"] == "finished" and first["summary"]["workers"] == 2
    assert second["status"] == "stopped" and second["history"][-1]["rows"] == 8_000
    assert not [*tmp_path.glob("s/trials/*/lock"), *tmp_path.glob("s/trials/*/ray")]
    assert not placement_groups()
    wait_until_free(8)
