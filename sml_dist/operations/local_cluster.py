"""A real Ray cluster of several nodes on one machine, with a token: for tests, demos, and to try what is meant for a larger one.

A node is a `ray start --block` with its raylet, agents and workers. Every process of a cluster carries its mark in the
environment, so that `down` leaves none behind, and the cluster's folder, by which `end` finds the mark where cluster.json
cannot be read. What there is to know of a cluster lies in that folder, ~/.local/state/sml_dist/clusters/NAME: its token,
cluster.json, and the nodes' output.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import field
from pathlib import Path
from typing import Any

import requests
from pydantic import TypeAdapter, ValidationError

from sml_dist.operations.namespaces import Network
from sml_dist.operations.processes import beside, kill_marked, marked
from sml_dist.operations.token import bearer, make_token, token_environment, without_proxy
from sml_dist.session import LOCAL_ENVIRONMENT
from sml_dist.spec import InputError, RunError, spec
from sml_dist.whole_files import WholeFiles

MARK = "SML_DIST_CLUSTER"
FOLDER = "SML_DIST_CLUSTER_FOLDER"
NODE_MARK = "SML_DIST_CLUSTER_NODE"
HEAD = "head"
START_SECONDS = 300.0  # on a machine under load a node has taken more than one minute
POLL_SECONDS = 0.2
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Ray's processes name themselves over their arguments and, but for this, over the environment behind them, where our mark is.
TITLES = {"SPT_NOENV": "1"}
# A lost node is noticed after five seconds, not after Ray's fifteen and more.
HEALTH = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5"}


@spec
class ClusterConfig:
    """`nodes` besides the head, each with `cpus` of Ray's; the head does no work. `object_store_mb` of shared memory each."""

    name: str = "local"
    nodes: int = 2
    cpus: int = 3
    object_store_mb: int = 200
    dashboard_host: str = "127.0.0.1"
    token: bool = True
    namespaces: bool = False


@spec
class LocalCluster:
    """A cluster that was started. `address` is that of its jobs API, `gcs` what Ray's nodes and drivers join."""

    config: ClusterConfig
    mark: str
    address: str
    gcs: str
    temporary: str
    network: Network | None = None
    nodes: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return state_folder(self.config.name)

    def environment(self) -> dict[str, str]:
        """What a client of the cluster needs."""
        found = token_environment(self.folder / "token") if self.config.token else {"RAY_AUTH_MODE": "disabled"}
        return found | {"RAY_API_SERVER_ADDRESS": self.address}


class Unread(InputError):
    """A cluster's file is not what this version writes."""


def state_folder(name: str) -> Path:
    if not re.fullmatch(r"[\w-]+", name):
        raise InputError(f"{name!r} is no name of a cluster; letters, digits, _ and - make one")
    root = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(root).expanduser() / "sml_dist" / "clusters" / name


def find(name: str) -> LocalCluster | None:
    """The cluster of that name, up or dead, or None. Raises Unread."""
    path = state_folder(name) / "cluster.json"
    try:
        return TypeAdapter(LocalCluster).validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError:
        way_out = f"sml-dist cluster down --name {name} ends the cluster all the same"
        raise Unread(f"{path} is damaged, or of another version; {way_out}") from None


def there(name: str) -> LocalCluster:
    """The cluster of that name; InputError if there is none."""
    cluster = find(name)
    if cluster is None:
        raise InputError(f"there is no cluster {name}; sml-dist cluster up --name {name} starts it")
    return cluster


def up(config: ClusterConfig, *, insecure: bool = False) -> LocalCluster:
    """Starts a cluster and waits until every node is there. Raises InputError, RunError; then nothing is left running."""
    if not config.token and not insecure:  # whatever the dashboard's address: Ray's other ports are open to the network
        raise InputError("without a token anyone who reaches this machine can run code on it; leave out --no-token, or say --insecure")
    _check_host(config.dashboard_host)
    folder = state_folder(config.name)
    try:
        if find(config.name):
            raise InputError(f"cluster {config.name} is there already; sml-dist cluster down --name {config.name} stops it")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if config.token:
            (folder / "token").unlink(missing_ok=True)
            make_token(folder / "token")
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}); name another place by XDG_STATE_HOME") from None
    cluster = _reserve(config)
    try:
        WholeFiles(folder).write("cluster.json", TypeAdapter(LocalCluster).dump_json(cluster, indent=1).decode())
        if cluster.network:
            cluster.network.make()
        for name in cluster.nodes:
            _start(cluster, name)
            if name == HEAD:
                _await(cluster, [HEAD])
        _await(cluster, cluster.nodes)
    except BaseException:
        down(cluster)
        raise
    return cluster


def down(cluster: LocalCluster) -> None:
    """Ends every process of the cluster, and removes all that it kept."""
    kill_marked(MARK, cluster.mark)
    if cluster.network:
        cluster.network.remove()
    shutil.rmtree(cluster.temporary, ignore_errors=True)
    shutil.rmtree(cluster.folder, ignore_errors=True)


def end(name: str) -> None:
    """The cluster of that name is down, also where its file cannot be read. Raises InputError where there is none."""
    folder = state_folder(name)
    try:
        cluster = there(name)
    except Unread:
        text = (folder / "cluster.json").read_text(errors="replace")
        for mark in {*beside(FOLDER, str(folder), MARK), *re.findall(r'"mark": *"([0-9a-f]{8})"', text)}:
            kill_marked(MARK, mark)
            Network.left(mark).remove()
            shutil.rmtree(_temporary(mark), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        return
    down(cluster)


def lose(cluster: LocalCluster, node: str) -> None:
    """Kills a node and all that runs on it at once, as a machine is lost."""
    if node not in cluster.nodes or node == HEAD:
        workers = ", ".join(name for name in cluster.nodes if name != HEAD)
        raise InputError(f"{node!r} is no node that cluster {cluster.config.name} can lose; it has {workers}")
    kill_marked(NODE_MARK, f"{cluster.mark}-{node}")


def status(cluster: LocalCluster) -> dict[str, Any]:
    """What the cluster's own books say of its "nodes": name, alive, address, cpus, object_store_mb; no node if it does not answer."""
    found = {"name": cluster.config.name, "address": cluster.address, "processes": len(marked(MARK, cluster.mark))}
    with contextlib.suppress(requests.RequestException, ValueError, KeyError):
        return found | {"nodes": _nodes(cluster)}
    return found | {"nodes": []}


def _nodes(cluster: LocalCluster) -> list[dict[str, Any]]:
    headers = bearer(cluster.environment()) if cluster.config.token else {}
    without_proxy(cluster.address)
    found = requests.get(f"{cluster.address}/nodes?view=summary", headers=headers, timeout=START_SECONDS).json()
    raylets = [node["raylet"] for node in found["data"]["summary"]]
    named = {raylet["labels"]["sml-dist/node"]: raylet for raylet in raylets if raylet["state"] == "ALIVE"}
    # for some seconds Ray counts on a node that is no more
    alive = {name: raylet for name, raylet in named.items() if marked(NODE_MARK, f"{cluster.mark}-{name}")}
    return [{"name": name, "alive": name in alive, **_sizes(alive.get(name))} for name in cluster.nodes]


def _sizes(raylet: dict[str, Any] | None) -> dict[str, Any]:
    if raylet is None:
        return {"address": None, "cpus": 0.0, "object_store_mb": 0}
    total = raylet["resourcesTotal"]
    store = round(total.get("objectStoreMemory", 0.0) / 1e6)
    return {"address": raylet["nodeManagerAddress"], "cpus": total.get("CPU", 0.0), "object_store_mb": store}


def _check_host(host: str) -> None:
    """Raises InputError where nothing can listen: Ray's dashboard would not come up, and be waited for."""
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        reason = str(error.strerror or error).partition(" (")[0]
        raise InputError(f"--dashboard-host {host}: nothing can listen there: {reason}; give an address of this machine") from None


def _reserve(config: ClusterConfig) -> LocalCluster:
    """Addresses, ports and folders of a cluster to be."""
    mark = uuid.uuid4().hex[:8]
    names = [HEAD, *(f"node-{number}" for number in range(1, config.nodes + 1))]
    network = Network.plan(mark, names) if config.namespaces else None
    gcs, dashboard = _free_ports(2)
    head = network.addresses[HEAD] if network else "127.0.0.1"
    temporary = _temporary(mark)
    temporary.mkdir(mode=0o700)  # closed to others
    reached = head if config.dashboard_host in (*LOOPBACK, "0.0.0.0") else config.dashboard_host
    return LocalCluster(
        config=config,
        mark=mark,
        address=f"http://{reached}:{dashboard}",
        gcs=f"{head}:{gcs}",
        temporary=str(temporary),
        network=network,
        nodes=names,
    )


def _temporary(mark: str) -> Path:
    return Path(tempfile.gettempdir()) / f"sml-{mark}"  # short: Unix sockets' paths below it may have 107 characters


def _start(cluster: LocalCluster, name: str) -> None:
    config, (agent, client) = cluster.config, _free_ports(2)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", f"--labels=sml-dist/node={name}"]
    command += [f"--object-store-memory={config.object_store_mb * 1_000_000}", f"--dashboard-agent-listen-port={agent}"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]  # else all nodes of one machine take the same range
    # Ray opens this folder to all, so it lies in one that is closed; nodes that start at once in one folder take each other's sockets
    command += [f"--temp-dir={cluster.temporary}/{cluster.nodes.index(name)}"]
    if cluster.network:
        command = cluster.network.inside(name, [*command, f"--node-ip-address={cluster.network.addresses[name]}"])
    if name == HEAD:
        host = cluster.network.addresses[HEAD] if cluster.network else config.dashboard_host
        command += ["--head", f"--port={cluster.gcs.rpartition(':')[2]}", "--num-cpus=0", "--num-gpus=0", f"--dashboard-host={host}"]
        command += [f"--dashboard-port={cluster.address.rpartition(':')[2]}", f"--ray-client-server-port={client}"]
    else:
        command += [f"--address={cluster.gcs}", f"--num-cpus={config.cpus}"]
    with open(cluster.folder / f"{name}.log", "w") as log:
        subprocess.Popen(command, env=_environment(cluster, name), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _environment(cluster: LocalCluster, name: str) -> dict[str, str]:
    """What a node's processes start with, the workers and jobs included."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # where a job finds its python
    own = {MARK: cluster.mark, FOLDER: str(cluster.folder), NODE_MARK: f"{cluster.mark}-{name}"}
    own |= {"PATH": path, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    own |= {key: value for key, value in cluster.environment().items() if key != "RAY_API_SERVER_ADDRESS"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return inherited | LOCAL_ENVIRONMENT | TITLES | HEALTH | own


def _await(cluster: LocalCluster, names: list[str]) -> None:
    """Returns when these nodes are there. Raises RunError for one that has died or takes too long, with the last line of its output."""
    deadline = time.monotonic() + START_SECONDS
    while missing := set(names) - {node["name"] for node in status(cluster)["nodes"] if node["alive"]}:
        dead = {name for name in missing if not marked(NODE_MARK, f"{cluster.mark}-{name}")}
        if dead or time.monotonic() > deadline:
            name = min(dead or missing)
            lines = [line for line in (cluster.folder / f"{name}.log").read_text().splitlines() if line.strip()]
            raise RunError(f"cluster {cluster.config.name} did not start: {name}: {lines[-1] if lines else 'it wrote nothing'}")
        time.sleep(POLL_SECONDS)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]
