"""What Ray Train starts for a run."""

from types import SimpleNamespace

import ray._private.state
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import NoopDecision

from sml_dist.config.run import parse
from sml_dist.data.synthetic import synth
from sml_dist.train.controller import AtCheckpoints
from sml_dist.train.launch import launch


def test_a_commands_run_starts_no_actor_that_it_has_no_use_for(ray_local, tmp_path):
    """Each is a process that imports for a second. Were Ray to start its own controller again, this would tell."""
    synth(3_000, str(tmp_path / "data"), fields=3, table_rows=300)
    plain = {
        "run": {"name": "run", "storage": str(tmp_path)},
        "data": {"path": str(tmp_path / "data")},
        "model": {"name": "dnn", "tower": {"hidden": [8]}},
        "embedding": {"dim": 4},
        "train": {"global_batch_size": 96, "max_steps": 2},
    }
    there = set(ray._private.state.actors())
    assert launch(parse(plain))["steps"] == 2
    found = {each["ActorClassName"] for key, each in ray._private.state.actors().items() if key not in there}
    assert {"Controller", "RayTrainWorker"} <= found
    assert found <= {"Controller", "RayTrainWorker", "SynchronizationActor", "_AutoscalingCoordinatorActor", "_StatsActor"}


def test_a_running_group_grows_only_when_a_checkpoint_has_just_been_completed_and_one_that_lost_a_worker_starts_at_once(tmp_path):
    """A node for two more workers is there all the time."""
    scaling, asked = ScalingConfig(num_workers=(1, 3), elastic_resize_monitor_interval_s=0), []
    policy = AtCheckpoints(scaling, tmp_path / "none yet", last_step=3)
    policy._maybe_send_resource_request = lambda: asked.append(1)
    policy._get_reserved_resources = lambda: {"node": {"CPU": 3.0}}
    running = {"worker_group_state": SimpleNamespace(start_time=0.0, num_workers=1), "worker_group_status": None}

    def stays() -> bool:
        return policy.make_decision_for_running_worker_group(**running) == NoopDecision()

    assert stays()
    policy.checkpoints.mkdir()
    (policy.checkpoints / ".partial-1").mkdir()
    assert stays()
    for step in (1, 2):
        (policy.checkpoints / f"step-{step:09d}").mkdir()
        assert policy.make_decision_for_running_worker_group(**running).num_workers == 3
        assert stays() and stays()
    (policy.checkpoints / "step-000000003").mkdir()
    assert stays(), "the run is at its end"
    assert policy.make_decision_for_non_running_worker_group().num_workers == 3
    assert len(asked) == 10  # each time, for Ray forgets a run that no longer asks
