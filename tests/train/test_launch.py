import pytest

from sml_dist.config.run import load
from sml_dist.train.launch import worker_resources


@pytest.mark.parametrize(("workers", "cpus", "left"), [("[2,4]", 3, 1), ("[1,8]", 8, 1), ("4", 4, 0)])
def test_workers_that_fill_a_node_leave_a_cpu_for_readers_where_their_number_is_free(workers, cpus, left):
    cpu, cuda = (load("configs/smoke.yaml", [f"train.num_workers={workers}", f"train.device={device}"]) for device in ("cpu", "cuda"))
    assert cpus - cpus // worker_resources(cpu)["CPU"] == left
    assert worker_resources(cuda)["GPU"] == 1
