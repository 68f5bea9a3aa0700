"""A cluster of a head and two nodes on this machine: from a clean checkout to a verified run through the loss of a node.

One test, for a cluster takes ten seconds to start: what a stranger can reach, where a secret shows up, and what is left
behind are looked at while it is there.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
import requests

from sml_dist.operations.local_cluster import LocalCluster, find
from sml_dist.train.gauges import NAMES
from tests.cluster.checkout import checkout
from tests.cluster.local import CANARY, Shell, listening, processes, until

needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces need root and `ip`")
pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shell = Shell(checkout(tmp_path / "checkout"))
    yield shell
    if find("three"):
        shell.run("cluster", "down", "--name", "three")


@pytest.mark.parametrize("options", [[], pytest.param(["--namespaces"], marks=needs_root)], ids=["plain", "namespaces"])
def test_a_job_from_a_clean_checkout_goes_on_through_a_lost_node_and_uses_each_row_once(shell: Shell, tmp_path: Path, options: list[str]):
    data, run = str(tmp_path / "data"), tmp_path / "runs/smoke"
    shell.run("synth", "--rows", "25000", "--fields", "4", "--dense", "2", "--table-rows", "200", "--output", data)
    made = shell.json("cluster", "up", "--name", "three", "--nodes", "2", "--cpus", "3", *options)
    cluster = find("three")
    shell.environment["RAY_API_SERVER_ADDRESS"] = "three"
    assert [node["cpus"] for node in shell.json("cluster", "status", "--name", "three")["nodes"]] == [0.0, 3.0, 3.0]

    nobody_gets_in_without_the_token(cluster)

    # submitted, stopped by Ctrl-C, and submitted again by the same words
    job = ["train", "configs/smoke.yaml", *settings(data, run)]
    status, shown = shell.interrupted("submit", *job, after="Running entrypoint", answer="y")
    assert status == 130 and "Stop job smoke too?" in shown and [each["status"] for each in shell.json("jobs")] == ["STOPPED"]
    assert shell.json("submit", "--no-wait", *job) == {"id": "smoke-2"}
    assert "is at run smoke now" in shell.run("submit", *job, status=2)

    # four workers on two nodes, then two on one
    until(lambda: list((run / "checkpoints").glob("step-*")), "a checkpoint")
    assert shell.json("status", str(run))["state"] == "alive"
    ranks = set(re.findall(r"table_row_wise\W+fused\W+([\d,]+)", (run / "plan.txt").read_text()))
    assert ranks == ({"0,1", "2,3"} if options else {"0,1,2,3"})  # Ray Train and the planner take one address for one machine
    assert {record["rank"] for record in logged(run) if record["run"] == "smoke"} == {0, 1, 2, 3}
    until(lambda: set(NAMES) <= prometheus(cluster), "metrics")
    secret_is_nowhere(cluster, shell, run)
    shell.run("cluster", "down", "--name", "three", "--node", "node-2")
    assert [node["alive"] for node in shell.json("cluster", "status", "--name", "three")["nodes"]] == [True, True, False]
    shell.run("jobs", "follow", "smoke-2")

    verified = shell.json("verify", str(run))
    assert verified["ok"] and (verified["missing"], verified["doubled"], verified["wrong"]) == (0, 0, 0)
    assert verified["workers"][0] == 4 and verified["workers"][-1] == 2, verified
    assert shell.json("status", str(run))["state"] == "done"
    scores = tmp_path / "scores"
    shell.run("submit", "predict", str(run), "--input", data, "--split", "valid", "--output", str(scores), "--num-workers", "1")
    assert sum(pq.read_metadata(path).num_rows for path in scores.rglob("part-*.parquet")) == 2_500  # a tenth is for validation
    assert list(run.rglob("*.wandb"))
    secret_is_nowhere(cluster, shell, run)

    shell.run("cluster", "down", "--name", "three")
    assert not processes(cluster) and not cluster.folder.exists() and not Path(cluster.temporary).exists()
    assert cluster.mark not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout if options else True
    with pytest.raises(requests.RequestException):
        requests.get(made["address"], timeout=5)


def settings(data: str, run: Path) -> list[str]:
    """About a minute of training on a busy machine; every setting by --set, as on any cluster."""
    keys = {
        "run.storage": run.parent, "data.path": data, "data.streams": 12, "data.reader_cpus": 0.25, "model.tower.hidden": "[16]",
        "train.num_workers": "[2,4]", "train.global_batch_size": 240, "train.epochs": 8, "train.threads": 1, "train.precision": "fp32",
        "train.checkpoint_every_steps": 25, "train.record_rows": "true", "train.max_restarts": 6, "embedding.sharding": "table_row_wise",
        "train.placement": "spread", "data.readers": "near", "train.step_timeout_s": 60,
        "tracking.wandb.project": "canary", "tracking.wandb.mode": "offline",
    }  # fmt: skip
    return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]


def logged(run: Path) -> list[dict]:
    return [json.loads(line) for path in (run / "logs").glob("rank-*.jsonl") for line in path.read_text().splitlines()]


def nobody_gets_in_without_the_token(cluster: LocalCluster) -> None:
    until(lambda: refusals(cluster) >= 4 * 4, "the dashboard and the agent of each node, four paths each, to refuse")
    dashboard = urlsplit(cluster.address)
    call = requests.post(f"http://{dashboard.netloc}/api/jobs/", json={"entrypoint": "touch /tmp/pwned"}, timeout=5)
    wrong = requests.get(f"{cluster.address}/api/jobs/", headers={"Authorization": f"Bearer {'0' * 64}"}, timeout=5)
    assert (call.status_code, wrong.status_code) == (401, 403)


def refusals(cluster: LocalCluster) -> int:
    """Every port that speaks HTTP refuses, but for two kinds that tell no secret: Prometheus' numbers, and the dashboard's empty page."""
    refused = 0
    for host, port in listening(cluster):
        for path in ("/api/version", "/api/jobs/", "/nodes?view=summary", "/logs", "/"):
            try:
                found = requests.get(f"http://{host}:{port}{path}", timeout=5)
            except requests.RequestException:
                break  # gRPC, which asks for the token by itself
            if found.status_code in (401, 403):
                refused += 1
            else:
                assert found.status_code == 200, (port, path, found.status_code)
                assert found.text.startswith("# HELP") or (path == "/" and found.text.lower().startswith("<!doctype html")), (port, path)
    return refused


def prometheus(cluster: LocalCluster) -> set[str]:
    """The run's gauges, from where Ray tells a Prometheus to ask. (Other ports are not ours to knock at while workers join there.)"""
    places = json.loads((Path(cluster.temporary) / "0/prom_metrics_service_discovery.json").read_text())
    texts = (requests.get(f"http://{place}/metrics", timeout=5).text for group in places for place in group["targets"])
    return {name for text in texts for name in re.findall(r'^ray_sml_dist_(\w+){[^}]*run="smoke"', text, re.M)}


def secret_is_nowhere(cluster: LocalCluster, shell: Shell, run: Path) -> None:
    """Neither the token nor a key in the environment is in anyone's arguments, the jobs API, the run's folder or Ray's logs."""
    secrets = [CANARY, (cluster.folder / "token").read_text()]
    texts = {f"arguments of {pid}": arguments(pid) for pid in processes(cluster)}
    texts["jobs"] = shell.run("jobs", "--json")
    for folder in (run, Path(cluster.temporary), shell.folder):
        texts |= {str(path): path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file() and readable(path)}
    for where, text in texts.items():
        assert not [secret for secret in secrets if secret in text], where


def readable(path: Path) -> bool:
    return "checkpoints" not in path.parts and path.stat().st_size < 20_000_000


def arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""
