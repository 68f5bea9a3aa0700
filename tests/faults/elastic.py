"""Run by test_elastic.py in a process of its own: a Ray cluster of several nodes on this machine, whose nodes come and go under a run.

python -m tests.faults.elastic DATASET FOLDER      prints {"verified", "told"} as JSON
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

SLOTS = {"CPU": 1.0, "slot": 1.0}


def main(dataset: str, folder: str) -> dict:
    os.environ |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    os.environ |= {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}
    import ray
    from ray.cluster_utils import Cluster

    from sml_dist.train.launch import launch
    from sml_dist.train.verify import verify_run
    from tests.faults.runs import config, steps_logged

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "object_store_memory": 200_000_000, "include_dashboard": False})
    node = {"num_cpus": 2, "resources": {"slot": 1}, "object_store_memory": 100_000_000}
    nodes = [cluster.add_node(**node), cluster.add_node(**node)]
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    sizes = {"num_workers": [1, 3], "worker_resources": SLOTS, "resize_seconds": 3, "max_restarts": 10}
    each = config(dataset, Path(folder), "elastic", epochs=1000, **sizes)
    told: list[str] = []

    def workers() -> list[int]:
        """Of each attempt so far, in order, by its ledger files."""
        names = sorted(path.name for path in (Path(each.run.folder) / "ledger").glob("*-rank-*.jsonl"))
        attempts = sorted({name.partition("-rank-")[0] for name in names})
        return [sum(name.startswith(attempt) for name in names) for attempt in attempts]

    def until(size: int) -> None:
        """The run goes on with so many workers, and has done steps with them."""
        while not (found := workers()) or found[-1] != size:
            time.sleep(0.1)
        lines = len(steps_logged(Path(each.run.folder)))
        while len(steps_logged(Path(each.run.folder))) < lines + 3:
            time.sleep(0.1)
        told.append(f"{size} workers")

    def shake() -> None:
        until(2)
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        until(1)
        nodes.extend([cluster.add_node(**node), cluster.add_node(**node)])
        until(3)

    thread = threading.Thread(target=lambda: launch(each), daemon=True)  # nodes are started from the main thread alone
    thread.start()
    shake()
    while verify_run(each.run.folder)["workers"] not in ([2, 1, 3], [2, 1, 2, 3]):  # until a checkpoint holds steps of all three
        time.sleep(0.5)
    return {"verified": verify_run(each.run.folder), "told": told}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:3])), flush=True)
    os._exit(0)  # the run has no end; Ray's nodes go with the process that started them
