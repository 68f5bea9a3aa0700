import pytest

from sml_dist.config.run import load
from sml_dist.train.launch import worker_resources


@pytest.mark.parametrize(("workers", "cpus", "left"), [("[2,4]", 3, 1), ("[1,8]", 8, 1), ("4", 4, 0)])
def test_workers_that_fill_a_node_leave_a_cpu_for_readers_where_their_number_is_free(workers, cpus, left):
    config = load("configs/smoke.yaml", [f"train.num_workers={workers}"])
    assert cpus - cpus // worker_resources(config, cuda=False)["CPU"] == left
    assert worker_resources(config, cuda=True)["GPU"] == 1
