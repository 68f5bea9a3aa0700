import threading

import pytest

from sml_dist.config.run import load
from sml_dist.train import launch
from sml_dist.train.launch import watching, worker_resources
from sml_dist.train.run_folder import RunFolder
from sml_dist.train.storage import append


@pytest.mark.parametrize(("workers", "cpus", "left"), [("[2,4]", 3, 1), ("[1,8]", 8, 1), ("4", 4, 0)])
def test_workers_that_fill_a_node_leave_a_cpu_for_readers_where_their_number_is_free(workers, cpus, left):
    cpu, cuda = (load("configs/smoke.yaml", [f"train.num_workers={workers}", f"train.device={device}"]) for device in ("cpu", "cuda"))
    assert cpus - cpus // worker_resources(cpu)["CPU"] == left
    assert worker_resources(cuda)["GPU"] == 1


def test_who_watches_a_run_is_shown_the_lines_around_one_that_a_full_disk_has_torn(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.01)
    folder, shown, looks, last = RunFolder(tmp_path), [], threading.Event(), threading.Event()

    def show(line):
        shown.append(line["step"])
        (last if line["step"] == 3 else looks).set()

    with watching(folder, show):
        while not looks.wait(0.02):
            folder.log(step=0)
        append(tmp_path / "metrics.jsonl", '{"step": 1}\n{"step": 2, "lo{"step": 2}\n{"step": 3}\n')
        last.wait(5)
    assert [step for step in shown if step] == [1, 3]
