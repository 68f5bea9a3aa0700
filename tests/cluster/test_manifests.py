"""What the files under cluster/ and jobs/ promise, as far as it shows without a cluster."""

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from sml_dist import __version__
from sml_dist.cli import app
from sml_dist.config.run import load
from sml_dist.data.stream import DATA_NODES
from sml_dist.operations.package import pack
from sml_dist.session import LOCAL_ENVIRONMENT
from sml_dist.train import gauges
from tests.cluster.checkout import checkout
from tests.cluster.rendering import render

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
OVERLAYS = sorted(path.parent for path in CLUSTER.glob("kuberay/overlays/*/kustomization.yaml"))
SERVICE = CLUSTER / "kuberay/service"
SCHEMAS = Path(os.environ.get("SML_DIST_SHARED", ROOT / "../shared")) / "kuberay"
OURS = sorted(path for folder in ("cluster", "jobs") for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
WRITTEN = [path for path in OURS if path.suffix not in (".txt", ".in")]
RAY_UP = sorted(CLUSTER.glob("ray-up/*.yaml"))

overlays = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
clouds = pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.stem)


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def ray_spec(overlay: Path) -> dict[str, Any]:
    objects = render(overlay)
    return one(objects, "RayJob")["spec"]["rayClusterSpec"] if overlay.name.endswith("-job") else one(objects, "RayCluster")["spec"]


def pods(overlay: Path) -> dict[str, dict[str, Any]]:
    """The pod specs of an overlay by name: head, the worker groups, of a job its submitter."""
    spec = ray_spec(overlay)
    found = {"head": spec["headGroupSpec"]["template"]["spec"]}
    found |= {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    if overlay.name.endswith("-job"):
        found["submitter"] = one(render(overlay), "RayJob")["spec"]["submitterPodTemplate"]["spec"]
    return found


def gibibytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi|Ti)", quantity).groups()
    return int(number) * {"Mi": 1 / 1024, "Gi": 1, "Ti": 1024}[unit]


def cpus(quantity: str) -> float:
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


# --- Kubernetes


def test_there_are_three_sizes_of_cluster_and_of_job():
    assert {path.name for path in OVERLAYS} == {size + kind for size in ("small", "medium", "large") for kind in ("", "-job")}


@overlays
def test_ray_objects_are_valid_and_hold_no_unknown_field(overlay: Path):
    if not SCHEMAS.exists():
        pytest.skip(f"schemas not found at {SCHEMAS}; set SML_DIST_SHARED")
    found = [item for item in render(overlay) if item["apiVersion"].startswith("ray.io/")]
    assert [item["kind"] for item in found] == ["RayJob" if overlay.name.endswith("-job") else "RayCluster"]
    schema = json.loads(gzip.decompress((SCHEMAS / f"{found[0]['kind'].lower()}s.v1.schema.json.gz").read_bytes()))
    jsonschema.validate(found[0], schema)
    misspelt = {**found[0], "spec": {**found[0]["spec"], "backofLimit": 1}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(misspelt, schema)


def test_a_service_runs_the_application_with_its_token_on_nodes_without_gpus():
    objects = render(SERVICE)
    service = one(objects, "RayService")
    assert not [item for item in objects if item["kind"] == "RayCluster"]
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert group["minReplicas"] >= 2 and "nvidia.com/gpu" not in json.dumps(group) and service["spec"]["excludeHeadPodFromServeSvc"]
    environment = {each["name"]: each for each in group["template"]["spec"]["containers"][0]["env"]}
    assert environment["SML_DIST_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "sml-dist-service", "key": "token"}
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    module, _, name = application["import_path"].partition(":")
    if SCHEMAS.exists():
        jsonschema.validate(service, json.loads(gzip.decompress((SCHEMAS / "rayservices.v1.schema.json.gz").read_bytes())))
    assert callable(getattr(pytest.importorskip(module), name))


@pytest.mark.parametrize("overlay", [*OVERLAYS, SERVICE], ids=lambda path: path.name)
def test_the_rendering_here_is_that_of_kustomize(overlay: Path):
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl, for `kubectl kustomize` alone")
    env = os.environ | {"KUBECONFIG": os.devnull}
    text = subprocess.run(["kubectl", "kustomize", str(overlay)], env=env, capture_output=True, text=True, check=True, timeout=60).stdout
    by_name = {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(text)}
    assert by_name == {(item["kind"], item["metadata"]["name"]): item for item in render(overlay)}


@overlays
def test_the_head_does_no_work_and_has_no_gpu(overlay: Path):
    head = ray_spec(overlay)["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == head["rayStartParams"]["num-gpus"] == "0"
    assert "gpu" not in json.dumps(pods(overlay)["head"]["containers"]).replace("gpu-", "")


@overlays
def test_gpus_are_in_the_gpu_group_alone_which_alone_has_the_gpu_image(overlay: Path):
    for name, pod in pods(overlay).items():
        resources = pod["containers"][0]["resources"]
        assert ("nvidia.com/gpu" in resources["limits"]) == (name == "gpu") == pod["containers"][0]["image"].startswith("sml-dist-gpu:")
        assert resources["limits"].get("nvidia.com/gpu") == resources["requests"].get("nvidia.com/gpu")


@overlays
def test_the_head_never_stands_on_a_spot_node(overlay: Path):
    head = pods(overlay)["head"]
    assert "tolerations" not in head
    terms = head["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert all({"key": "sml-dist/capacity", "operator": "NotIn", "values": ["spot"]} in term["matchExpressions"] for term in terms)


@overlays
def test_workers_of_medium_and_large_stand_on_spot_nodes(overlay: Path):
    for name in ("gpu", "data"):
        pod = pods(overlay)[name]
        tolerated = any(item.get("value") == "spot" for item in pod.get("tolerations", []))
        assert tolerated == (pod.get("nodeSelector") == {"sml-dist/capacity": "spot"}) == (not overlay.name.startswith("small"))


@overlays
def test_clusters_grow_from_nothing_to_a_bound(overlay: Path):
    spec = ray_spec(overlay)
    assert spec["enableInTreeAutoscaling"] is True
    assert {group["groupName"] for group in spec["workerGroupSpecs"]} == {"gpu", "data"}
    assert all(0 == group["minReplicas"] <= group["replicas"] < group["maxReplicas"] <= 32 for group in spec["workerGroupSpecs"])


@overlays
def test_ray_asks_for_a_token_and_nothing_is_exposed(overlay: Path):
    spec = ray_spec(overlay)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP" and spec["headGroupSpec"]["enableIngress"] is False
    objects = render(overlay)
    assert not {item["kind"] for item in objects} & {"Service", "Ingress", "Secret"}
    policy = one(objects, "NetworkPolicy")["spec"]
    assert (policy["podSelector"], policy["policyTypes"]) == ({}, ["Ingress"])
    own, prometheus = policy["ingress"]
    assert own == {"from": [{"podSelector": {}}]} and prometheus["ports"] == [{"protocol": "TCP", "port": 8080}]
    assert {item["metadata"].get("namespace") for item in objects if item["kind"] != "Namespace"} == {"sml-dist"}


@overlays
def test_the_head_alone_has_the_key_of_wandb_for_the_driver_is_there(overlay: Path):
    keyed = {name for name, pod in pods(overlay).items() if "WANDB_API_KEY" in json.dumps(pod)}
    assert keyed == {"head"}


@overlays
def test_memory_requested_is_the_limit(overlay: Path):
    autoscaler = ray_spec(overlay)["autoscalerOptions"]["resources"]
    for resources in [autoscaler, *(container["resources"] for pod in pods(overlay).values() for container in pod["containers"])]:
        assert resources["requests"]["memory"] == resources["limits"]["memory"]


# CPUs and GiB as clouds sell them.
MACHINES = {
    "small": {"head": (4, 16), "gpu": (8, 32), "data": (4, 16)},
    "medium": {"head": (4, 16), "gpu": (16, 64), "data": (8, 32)},
    "large": {"head": (8, 32), "gpu": (48, 384), "data": (16, 64)},
}
BESIDE = (0.25, 0.25)  # GKE's container for the bucket of datasets, in each pod
DAEMONS = (0.15, 0.25)  # of GKE on each node: logging, metrics, kube-proxy


def allocatable(cpus: int, gib: int) -> tuple[float, float]:
    """What GKE leaves of a machine of 4 CPUs and 16 GiB or more, by its documented formula."""
    return cpus - 0.08 - 0.0025 * (cpus - 4), gib - 2.6 - 0.06 * min(gib - 16, 112) - 0.02 * max(gib - 128, 0) - 0.1


@overlays
def test_each_pod_fits_the_machine_that_it_is_meant_for(overlay: Path):
    autoscaler = ray_spec(overlay)["autoscalerOptions"]["resources"]["requests"]
    for name, machine in MACHINES[overlay.name.removesuffix("-job")].items():
        requests = [container["resources"]["requests"] for container in pods(overlay)[name]["containers"]]
        requests += [autoscaler] if name == "head" else []
        asked = sum(cpus(each["cpu"]) for each in requests), sum(gibibytes(each["memory"]) for each in requests)
        for wanted, beside, daemons, left in zip(asked, BESIDE, DAEMONS, allocatable(*machine), strict=True):
            assert wanted + beside + daemons <= left, (name, machine)


@overlays
def test_every_container_runs_as_non_root_without_privileges(overlay: Path):
    contexts = [ray_spec(overlay)["autoscalerOptions"]["securityContext"]]
    for pod in pods(overlay).values():
        assert pod["securityContext"]["runAsUser"] > 0 and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        contexts += [container["securityContext"] for container in pod["containers"] + pod.get("initContainers", [])]
    for context in contexts:
        assert context["runAsNonRoot"] is True and context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


@overlays
def test_nodes_have_the_environment_that_makes_a_local_ray_fast(overlay: Path):
    data = one(render(overlay), "ConfigMap")["data"]
    assert LOCAL_ENVIRONMENT.items() <= data.items()
    for name in ("head", "gpu", "data"):
        assert {"configMapRef": {"name": "ray-environment"}} in pods(overlay)[name]["containers"][0]["envFrom"]


@overlays
def test_shared_memory_holds_rays_object_store_within_the_memory_limit(overlay: Path):
    for name in ("head", "gpu", "data"):
        pod = pods(overlay)[name]
        (shm,) = (volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm")
        assert shm["medium"] == "Memory" and {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
        memory = gibibytes(pod["containers"][0]["resources"]["limits"]["memory"])
        assert 0.3 * memory <= gibibytes(shm["sizeLimit"]) <= 0.5 * memory


@overlays
def test_data_nodes_are_labelled_for_the_readers(overlay: Path):
    labels = {group["groupName"]: group.get("labels") for group in ray_spec(overlay)["workerGroupSpecs"]}
    assert labels == {"gpu": None, "data": DATA_NODES}


@overlays
def test_every_node_sees_run_folders_and_datasets(overlay: Path):
    claims = {item["metadata"]["name"]: item["spec"] for item in render(overlay) if item["kind"] == "PersistentVolumeClaim"}
    assert claims["shared"]["accessModes"] == ["ReadWriteMany"]
    for name in ("head", "gpu", "data"):
        pod = pods(overlay)[name]
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["volumes"]}
        assert {path: volumes[mounts[path]] for path in ("/shared", "/data")} == {"/shared": "shared", "/data": "datasets"}


@overlays
def test_jobs_end_their_cluster_are_tried_again_and_run_what_the_configuration_takes(overlay: Path):
    if not overlay.name.endswith("-job"):
        return
    spec = one(render(overlay), "RayJob")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True and spec["backoffLimit"] >= 1 and spec["ttlSecondsAfterFinished"] > 0
    python, job, config, *rest = shlex.split(spec["entrypoint"])
    paths = [ROOT / Path(path).relative_to("/opt/sml_dist") for path in (job, config)]
    assert python == "python" and all(path.exists() for path in paths) and rest[::2] == ["--set"] * (len(rest) // 2)
    run = load(str(paths[1]), rest[1::2])
    assert run.run.storage.startswith("/shared/") and run.data.path.startswith("/data/") and run.train.device == "cuda"
    gpu = next(group for group in spec["rayClusterSpec"]["workerGroupSpecs"] if group["groupName"] == "gpu")
    each = int(gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert run.train.worker_range[1] <= gpu["maxReplicas"] * each and run.data.streams % run.train.worker_range[1] == 0


# --- AWS and GCP


@clouds
def test_ray_up_files_hold_what_ray_takes(path: Path):
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    validate_config(fillout_defaults(yaml.safe_load(path.read_text())))


@clouds
def test_on_a_cloud_workers_are_spot_and_the_head_is_not(path: Path):
    page = yaml.safe_load(path.read_text())
    kinds = page["available_node_types"]
    assert set(kinds) == {"head", "gpu", "data"} and page["head_node_type"] == "head"
    assert {name for name, kind in kinds.items() if "spot" in json.dumps(kind["node_config"]).lower()} == {"gpu", "data"}
    assert kinds["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for name, kind in kinds.items() if name != "head")
    assert page["max_workers"] == sum(kind["max_workers"] for name, kind in kinds.items() if name != "head")


def test_on_aws_nodes_are_in_a_group_of_ones_own_for_rays_lets_ssh_in_from_everywhere():
    page = yaml.safe_load((CLUSTER / "ray-up/aws.yaml").read_text())
    assert all(kind["node_config"]["SecurityGroupIds"] for kind in page["available_node_types"].values())


@clouds
def test_on_a_cloud_nodes_start_ray_with_the_token_and_the_environment_from_the_locks(path: Path):
    page = yaml.safe_load(path.read_text())
    head, worker = page["head_start_ray_commands"][-1], page["worker_start_ray_commands"][-1]
    for command in (head, worker):
        assert command.index("environment.env") < command.index("RAY_AUTH_MODE=token") < command.index("ray start")
        assert "chmod 600 ~/.ray/auth_token" in command
    assert "--num-cpus=0 --num-gpus=0 --dashboard-host=127.0.0.1" in head
    assert any("make setup" in command for command in page["setup_commands"])  # the locks, in the one right order
    assert "~/.ray/auth_token" in page["file_mounts"] and ".git" in page["rsync_exclude"]
    pips = [command.split("#")[0] for command in page["head_setup_commands"] if "pip install" in command]
    assert pips and all(re.fullmatch(r"[\w-]+==[\w.]+", name) for pip in pips for name in pip.split("--quiet")[1].split())


def test_the_environment_file_is_what_a_local_ray_gets():
    lines = (CLUSTER / "kuberay/base/environment.env").read_text().split()
    assert LOCAL_ENVIRONMENT.items() <= dict(line.split("=") for line in lines).items()


def test_tokens_are_only_ever_made_under_umask_077():
    text = (CLUSTER / "README.md").read_text()
    made = [line for line in text.splitlines() if "> ~/.ray/auth_token" in line]
    assert len(made) >= 2 and all("umask 077" in line.split("> ~/.ray")[0] for line in made)


# --- Prometheus and Grafana


def test_the_dashboard_shows_every_gauge_of_a_run_and_no_other():
    panels = json.loads((CLUSTER / "grafana/sml_dist.json").read_text())["panels"]
    asked = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    assert set(re.findall(r"ray_sml_dist_(\w+){run", asked)) == set(gauges.NAMES)
    assert len({panel["id"] for panel in panels}) == len(panels) and all(panel["title"] for panel in panels)


# --- all files


def test_all_yaml_parses():
    for path in WRITTEN:
        if path.suffix == ".yaml":
            assert list(yaml.safe_load_all(path.read_text())), path


def test_no_file_holds_a_secret():
    names = r"(?i)\b[\w.-]*(api[_-]?key|auth_token|password|passwd|secret_access_key|secret_key)[\w.-]*\s*[=:]\s*['\"]?([\w/+.-]{8,})"
    for path in WRITTEN:
        text = path.read_text()
        assert not re.search(r"\b(AKIA|ghp_|hf_)\w{12,}|-----BEGIN|\b[0-9a-f]{32,}\b", text), path
        assert not [value for _, value in re.findall(names, text) if not value.startswith(("$", "/", "~"))], path
        for item in (item for page in yaml.safe_load_all(text) for item in walk(page)) if path.suffix == ".yaml" else ():
            assert item.get("kind") != "Secret", path
            if re.search("KEY|TOKEN|SECRET|PASSWORD", str(item.get("name", ""))):
                assert "value" not in item and "secretKeyRef" in item["valueFrom"], path


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def test_images_are_pinned():
    images = {container["image"] for overlay in OVERLAYS for pod in pods(overlay).values() for container in pod["containers"]}
    assert images == {f"sml-dist-cpu:{__version__}", f"sml-dist-gpu:{__version__}"}
    text = (CLUSTER / "Dockerfile").read_text()
    (tag,) = re.findall(r"^ARG PYTHON=(\S+)$", text, re.M)
    assert re.fullmatch(r"3\.11\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", tag)
    assert set(re.findall(r"^FROM (\S+)", text, re.M)) == {"python:${PYTHON}", "common"}
    pinned = {ray_spec(overlay)["rayVersion"] for overlay in OVERLAYS}
    assert pinned == set(re.findall(r"^ray==(\S+)", (CLUSTER / "requirements.txt").read_text(), re.M))


# --- Dockerfile


def dockerfile(target: str) -> list[tuple[str, str]]:
    """The instructions of a target, those of the stage it starts from first."""
    stages: dict[str, list[tuple[str, str]]] = {}
    for line in re.sub(r"\\\n", " ", (CLUSTER / "Dockerfile").read_text()).splitlines():
        if line.startswith("FROM"):
            _, start, _, name = line.split()
            stages[name] = here = list(stages.get(start, []))
        elif line and not line.startswith(("#", "ARG")):
            here.append(tuple(line.split(maxsplit=1)))
    return stages[target]


def test_an_audit_asks_about_every_lock():
    lines = (ROOT / "Makefile").read_text().split("\naudit: setup\n")[1].splitlines()
    asked = {lock for line in lines[:2] for lock in re.findall(r"cluster/(\S+\.txt)", line)}
    assert asked | {"requirements.txt"} == {path.name for path in CLUSTER.glob("*.txt")}  # which dev.txt holds to the hash
    (torch,) = re.findall(r"torch==\S+", lines[1])
    assert f"$(PIP) {torch}" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_dockerfile_installs_what_the_makefile_does_in_its_order(kind: str):
    setup = (ROOT / "Makefile").read_text().partition("\n$(READY):")[2].partition("\n\n")[0]
    recipe = re.findall(r"^\t\$\(PIP\) (.*)$", setup, re.M)
    steps = [words.split("pip install ")[1] for what, words in dockerfile(kind) if what == "RUN" and "pip install" in words]
    assert len(recipe) == 4
    assert steps == [line.replace("dev.txt", "requirements.txt").replace("$(KIND)", kind) for line in recipe]


def test_requirements_are_dev_requirements_to_the_hash():
    blocks = {name: re.findall(r"^\w(?:[^\\\n]|\\\n)*", (CLUSTER / name).read_text(), re.M) for name in ("requirements.txt", "dev.txt")}
    assert set(blocks["requirements.txt"]) <= set(blocks["dev.txt"])


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_images_run_as_non_root_and_copy_code_last(kind: str):
    lines = dockerfile(kind)
    assert lines[-1] == ("USER", "1000:1000")
    copied = [words for what, words in lines if what == "COPY"]
    assert copied.index("sml_dist sml_dist") > max(number for number, words in enumerate(copied) if ".txt" in words)
    assert all((ROOT / name).exists() for words in copied for name in words.split()[:-1])
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*" and not [name for name in ignored if name.startswith("!.")]


# --- jobs


def test_every_long_command_is_a_job_too():
    commands = set(typer.main.get_command(app).commands) & {"prepare", "train", "sweep", "evaluate", "predict", "export", "study"}
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == commands


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "jobs").glob("*.py")))
def test_a_job_is_thin_and_takes_the_commands_arguments(name: str):
    path = ROOT / "jobs" / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 30
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    ours = subprocess.run([sys.executable, str(path), "--help"], env=env, capture_output=True, text=True, timeout=60)
    command = subprocess.run([sys.executable, "-m", "sml_dist.cli", name, "--help"], env=env, capture_output=True, text=True, timeout=60)
    assert ours.returncode == 0 and ours.stdout.splitlines()[2:] == command.stdout.splitlines()[2:]


def test_a_job_keeps_the_commands_exit_status():
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    call = [sys.executable, str(ROOT / "jobs/train.py"), "nowhere.yaml"]
    found = subprocess.run(call, env=env, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2 and "nowhere.yaml: no such file" in found.stderr


def test_what_a_job_uploads_is_under_a_megabyte_and_all_it_needs(tmp_path: Path):
    folder = checkout(tmp_path / "checkout")
    for leftover in (".git/objects/pack", ".venv/lib/torch.so", "demo/data/train/0.parquet", "runs/a/metrics.jsonl", "wandb/run"):
        (folder / leftover).parent.mkdir(parents=True, exist_ok=True)
        (folder / leftover).write_bytes(os.urandom(2_000_000))
    pack(folder, tmp_path / "package.zip")
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        names = {name for name in package.namelist() if not name.endswith("/")}
    assert (tmp_path / "package.zip").stat().st_size < 1_000_000
    assert {name.split("/")[0] for name in names if "/" in name} == {"sml_dist", "jobs", "configs"}
    needed = {str(path.relative_to(ROOT)) for folder in ("sml_dist", "jobs") for path in (ROOT / folder).rglob("*.py")}
    assert needed <= names and "configs/smoke.yaml" in names
