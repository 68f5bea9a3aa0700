"""What Ray Train starts for a run."""

import ray._private.state

from sml_dist.config.run import parse
from sml_dist.data.synthetic import synth
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
