"""A local cluster comes up whole, or says why not and leaves nothing."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from sml_dist.cli import app
from sml_dist.operations import local_cluster
from sml_dist.operations.local_cluster import HEAD, MARK, TITLES, ClusterConfig, LocalCluster, down, find, up
from sml_dist.operations.processes import marked
from sml_dist.spec import InputError, RunError


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
    monkeypatch.setattr(local_cluster, "START_SECONDS", float("inf"))  # pytest's own limit would end it
    with pytest.raises(RunError, match="cluster local did not start: node-2: there is no room"):
        up(ClusterConfig())
    assert len(begun) == 3 and not marked(MARK, begun[0].mark) and find("local") is None


@pytest.mark.parametrize("damage", [lambda text: "{", lambda text: text.replace('"gcs"', '"gcs_address"'), lambda text: ""])
def test_a_cluster_whose_file_cannot_be_read_is_told_of_and_ended_all_the_same_and_no_other(monkeypatch, tmp_path, damage):
    def start(cluster: LocalCluster, name: str) -> None:
        subprocess.Popen(["sleep", "60"], env=local_cluster._environment(cluster, name), start_new_session=True)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(local_cluster, "_start", start)
    monkeypatch.setattr(local_cluster, "_await", lambda cluster, names: None)
    made, other = up(ClusterConfig(token=False), insecure=True), up(ClusterConfig(name="other"))
    try:
        file = made.folder / "cluster.json"
        file.write_text(damage(file.read_text()))
        for command in (["status"], ["status", "--json"], ["up"], ["down", "--node", "node-1"]):
            error = CliRunner().invoke(app, ["cluster", *command]).exception
            assert isinstance(error, InputError) and str(error).startswith(f"{file} is damaged, or of another version; "), command
            assert str(error).endswith("sml-dist cluster down --name local ends the cluster all the same")
        assert len(marked(MARK, made.mark)) == 3 and Path(made.temporary).is_dir()
        assert CliRunner().invoke(app, ["cluster", "down"]).exit_code == 0
        assert not marked(MARK, made.mark) and not Path(made.temporary).exists() and find("local") is None
        assert len(marked(MARK, other.mark)) == 3 and find("other") == other
    finally:
        for cluster in (made, other):
            down(cluster)


def test_a_node_without_a_name_is_none_of_the_cluster_and_does_not_end_it(monkeypatch):
    there = SimpleNamespace(config=ClusterConfig(), nodes=[HEAD, "node-1"], mark="0badcafe")
    monkeypatch.setattr(local_cluster, "there", lambda name: there)
    monkeypatch.setattr(local_cluster, "end", lambda name: pytest.fail("the cluster was ended"))
    error = CliRunner().invoke(app, ["cluster", "down", "--node", ""]).exception
    assert isinstance(error, InputError) and str(error) == "'' is no node that cluster local can lose; it has node-1"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("local", "`sml-dist submit`, end it with `sml-dist cluster down`"),
        ("b", "submit --address b`, end it with `sml-dist cluster down --name b`"),
    ],
)
def test_a_cluster_that_is_up_says_how_to_end_it_and_no_other(monkeypatch, name, told):
    made = SimpleNamespace(address="http://127.0.0.1:8265", environment=dict)
    monkeypatch.setattr(local_cluster, "up", lambda config, insecure: made)
    assert told in CliRunner().invoke(app, ["cluster", "up", "--name", name]).stdout


def test_the_lines_that_a_cluster_prints_can_be_pasted_into_a_shell(monkeypatch):
    given = {"RAY_AUTH_TOKEN_PATH": "/home/a b/it's $HOME/token"}
    made = SimpleNamespace(address="http://127.0.0.1:8265", environment=lambda: given)
    monkeypatch.setattr(local_cluster, "up", lambda config, insecure: made)
    (line,) = (line for line in CliRunner().invoke(app, ["cluster", "up"]).stdout.splitlines() if "export" in line)
    shown = subprocess.run(["sh", "-c", f'{line}; printf %s "$RAY_AUTH_TOKEN_PATH"'], capture_output=True, text=True, check=True)
    assert shown.stdout == given["RAY_AUTH_TOKEN_PATH"]


def test_a_state_folder_that_cannot_be_made_is_told_of_with_the_variable_that_names_another(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match="file/sml_dist/clusters/local cannot be written .*; name another place by XDG_STATE_HOME"):
        up(ClusterConfig())


@pytest.mark.parametrize("host", ["nope.invalid", "192.0.2.1", "::2"])  # of no machine: such names, and such addresses
def test_a_dashboards_host_where_nothing_can_listen_is_told_of_before_anything_is_made(monkeypatch, tmp_path, host):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(local_cluster, "_start", lambda cluster, name: pytest.fail("a node was started"))
    with pytest.raises(InputError, match=f"--dashboard-host {host}: nothing can listen there: .*; give an address of this machine"):
        up(ClusterConfig(dashboard_host=host))
    assert not [*tmp_path.iterdir()]


def test_a_clusters_file_is_there_whole_or_not_at_all_and_then_nothing_else_is(monkeypatch, tmp_path):
    """The disk is full as it is written."""

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(local_cluster, "_start", lambda cluster, name: pytest.fail("a node was started"))
    with pytest.raises(OSError, match="No space left"):
        up(ClusterConfig())
    assert find("local") is None and not [*tmp_path.glob("sml-*")]


def test_a_process_that_names_itself_keeps_its_mark():
    """As Ray's do: without it `down` leaves some of them, and `status` does not see them."""
    code = "import ray; from ray._raylet import setproctitle; setproctitle('ray::' + 'x' * 5000); print(flush=True); input()"
    given = os.environ | TITLES | {MARK: "renamed"}
    with subprocess.Popen([sys.executable, "-c", code], env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert marked(MARK, "renamed") == [process.pid]
        process.communicate(b"\n")
