"""A local cluster comes up whole, or says why not and leaves nothing."""

import os
import subprocess
import sys
import time

import pytest

from sml_dist.operations import local_cluster
from sml_dist.operations.local_cluster import HEAD, MARK, TITLES, ClusterConfig, LocalCluster, find, up
from sml_dist.operations.processes import marked
from sml_dist.spec import RunError


def test_a_node_that_dies_as_it_starts_is_told_of_at_once_and_nothing_is_left(monkeypatch, tmp_path):
    begun: list[LocalCluster] = []

    def start(cluster: LocalCluster, name: str) -> None:
        begun.append(cluster)
        command = "sleep 60" if name != "node-2" else "echo there is no room; exit 1"
        with open(cluster.folder / f"{name}.log", "w") as log:
            subprocess.Popen(["sh", "-c", command], env=local_cluster._environment(cluster, name), stdout=log, start_new_session=True)

    def status(cluster: LocalCluster) -> dict:
        return {"nodes": [{"name": name, "alive": name == HEAD} for name in cluster.nodes]}

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(local_cluster, "_start", start)
    monkeypatch.setattr(local_cluster, "status", status)
    monkeypatch.setattr(local_cluster, "START_SECONDS", 20.0)
    started = time.monotonic()
    with pytest.raises(RunError, match="cluster local did not start: node-2: there is no room"):
        up(ClusterConfig())
    assert time.monotonic() - started < 10
    assert len(begun) == 3 and not marked(MARK, begun[0].mark) and find("local") is None


def test_a_process_that_names_itself_keeps_its_mark():
    """As Ray's do: without it `down` leaves some of them, and `status` does not see them."""
    code = "import ray; from ray._raylet import setproctitle; setproctitle('ray::' + 'x' * 5000); print(flush=True); input()"
    given = os.environ | TITLES | {MARK: "renamed"}
    with subprocess.Popen([sys.executable, "-c", code], env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert marked(MARK, "renamed") == [process.pid]
        process.communicate(b"\n")
