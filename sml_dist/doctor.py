"""`sml-dist doctor`: is this machine fit to train? Each probe gathers facts, each check is a pure function of them.

Whatever may crash or hang (a broken shared object, Ray) is tried in a process of its own with a time limit.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sml_dist.nn.native import find_compiler, processor

# The triple that was built together (the compatibility table in fbgemm_gpu/__init__.py) and the rest of pyproject.toml.
WANTED = {"torch": "2.13", "torchrec": "1.8", "fbgemm": "1.8", "ray": "2.60", "pyarrow": "26", "wandb": "0.31"}
RAY = "ray[default,train,data,tune,serve]"
FBGEMM_BUILDS = ("fbgemm-gpu", "fbgemm-gpu-cpu")
PYTHON = (3, 11)
GB = 1e9
# Driver and one worker take about 3 GB each beyond the tables.
MEMORY_NEEDED, DISK_NEEDED, SHM_WANTED = 4 * GB, 5 * GB, 1 * GB
RAY_DISK_LIMIT = 0.95  # of the disk of its temporary folder; beyond, Ray refuses to spill objects
LOAD_SECONDS, RAY_SECONDS = 120, 90

# Both builds write into the folder fbgemm_gpu/, so removing one breaks the other: remove both, then install one. torchrec
# goes without its dependencies, since it names the GPU build as one.
REINSTALL = {
    build: f"""pip uninstall -y fbgemm-gpu fbgemm-gpu-cpu torchrec
pip install tensordict "torchmetrics==1.0.3" tqdm pyre-extensions
pip install --no-deps "{package}=={WANTED["fbgemm"]}.*" "torchrec=={WANTED["torchrec"]}.*\""""
    for build, package in {"cpu": "fbgemm-gpu-cpu", "gpu": "fbgemm-gpu"}.items()
}

# Each line is printed as soon as it is known, so that a crash leaves those before it.
LOAD_PROBE = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps({"cuda": torch.version.cuda, "gpus": gpus}), flush=True)
import fbgemm_gpu, torchrec
torch.ops.fbgemm.asynchronous_complete_cumsum(torch.tensor([1, 2]))
print(json.dumps({"loaded": True}), flush=True)
"""
RAY_PROBE = """
import ray
from sml_dist.session import ask_for_token
ask_for_token()
ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=100_000_000, logging_level="error", log_to_driver=False)
print(ray.get(ray.remote(lambda: "task done").remote(), timeout=60))
ray.shutdown()
"""


@dataclass(frozen=True)
class Check:
    """One finding. `fix` says what to do: advice if `ok`, otherwise necessary."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a probe's process ended; `status` is None if it ran out of time."""

    status: int | None
    stdout: str = ""
    stderr: str = ""

    @property
    def reason(self) -> str:
        """The last line of the error output, else the exit status."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {self.status}"


def diagnose() -> list[Check]:
    """All checks, each after those that it depends on; takes about 15 seconds."""
    installed = installed_versions()
    load = run_probe(LOAD_PROBE, LOAD_SECONDS)
    facts = load_facts(load)
    gpus = driver_gpus()
    build = "gpu" if facts.get("cuda") and gpus else "cpu"
    temporary = os.environ.get("RAY_TMPDIR", tempfile.gettempdir())
    return [
        python_check(sys.version_info[:3]),
        pairing_check(installed, build),
        build_check(installed, facts.get("cuda"), gpus),
        load_check(load, facts, build),
        *(version_check(name, installed.get(name)) for name in ("ray", "pyarrow", "wandb")),
        ray_check(run_probe(RAY_PROBE, RAY_SECONDS)),
        memory_check(available_memory()),
        disk_check(disks([temporary, str(Path.cwd())])),
        shm_check(shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else None),
        bf16_check(frozenset(processor().split())),
        compiler_check(find_compiler()),
        gpu_check(gpus, facts),
    ]


def render(checks: Sequence[Check]) -> RenderableType:
    """A table of the findings, and below it the fixes, one command a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(mark(check), check.name, Text(check.detail))
    fixes: list[RenderableType] = []
    for fix in dict.fromkeys(check.fix for check in checks if check.fix):
        names = ", ".join(check.name for check in checks if check.fix == fix)
        fixes += [Text(), Text(f"To mend: {names}", style="bold"), Padding(Text(fix), (0, 0, 0, 2), expand=False)]
    return Group(table, *fixes, Text(), verdict(checks))


def mark(check: Check) -> Text:
    if not check.ok:
        return Text("fault", style="bold red")
    return Text("hint ", style="yellow") if check.fix else Text("ok   ", style="green")


def verdict(checks: Sequence[Check]) -> Text:
    faults = sum(not check.ok for check in checks)
    return Text(f"{faults} of {len(checks)} checks failed", style="bold red") if faults else Text("ready to train", style="bold green")


# --- checks: facts in, a finding out


def python_check(version: tuple[int, int, int]) -> Check:
    wanted = ".".join(map(str, PYTHON))
    fix = "" if version >= PYTHON else f"make a virtual environment with Python {wanted} or later"
    return Check("Python", version >= PYTHON, ".".join(map(str, version)), fix)


def pairing_check(installed: Mapping[str, str], build: str) -> Check:
    """torch, torchrec and fbgemm must be those built together, or fbgemm does not load."""
    found = {name: fbgemm_version(installed) if name == "fbgemm" else installed.get(name) for name in ("torch", "torchrec", "fbgemm")}
    wrong = [name for name, version in found.items() if not matches(version, WANTED[name])]
    detail = ", ".join(f"{name} {version or 'missing'}" for name, version in found.items())
    if not wrong:
        return Check("versions that pair", True, detail)
    torch = f'pip install "torch=={WANTED["torch"]}.*"\n' if "torch" in wrong else ""
    expected = ", ".join(f"{name} {WANTED[name]}" for name in found)
    return Check("versions that pair", False, f"{detail}; these pair: {expected}", torch + REINSTALL[build])


def build_check(installed: Mapping[str, str], cuda: str | None, gpus: Sequence[str]) -> Check:
    """The GPU build of fbgemm needs the CUDA build of torch; and only one build can be installed."""
    builds = [name for name in FBGEMM_BUILDS if name in installed]
    detail = f"torch for {f'CUDA {cuda}' if cuda else 'CPU'}, {' and '.join(builds) or 'no fbgemm'}"
    right = "gpu" if cuda and gpus else "cpu"
    if len(builds) == 2:
        return Check("builds that match", False, f"{detail}: they overwrite each other's files", REINSTALL[right])
    if not builds or (builds == ["fbgemm-gpu"] and not cuda):
        return Check("builds that match", False, detail, REINSTALL[right])
    fix = REINSTALL["gpu"] if builds == ["fbgemm-gpu-cpu"] and right == "gpu" else ""
    return Check("builds that match", not fix, detail + (": tables cannot use the GPU" if fix else ""), fix)


def load_check(load: Outcome, facts: Mapping[str, object], build: str) -> Check:
    """torch, fbgemm and torchrec import, and an operator of fbgemm runs."""
    if facts.get("loaded"):
        return Check("fbgemm loads", True, "torch, fbgemm and torchrec import; an operator runs")
    if load.status is None:
        return Check("fbgemm loads", False, f"no answer within {LOAD_SECONDS} s", "run doctor again when the machine is less busy")
    if not facts:
        return Check(
            "fbgemm loads", False, f"torch does not import: {load.reason}", f'pip install --force-reinstall "torch=={WANTED["torch"]}.*"'
        )
    return Check("fbgemm loads", False, load.reason, REINSTALL[build])


def version_check(name: str, version: str | None) -> Check:
    package = RAY if name == "ray" else name
    ok = matches(version, WANTED[name])
    detail = version or "missing"
    fix = "" if ok else f'pip install "{package}=={WANTED[name]}.*"'
    return Check(name, ok, detail if ok else f"{detail}; {WANTED[name]} is wanted", fix)


def ray_check(outcome: Outcome) -> Check:
    if outcome.status == 0 and "task done" in outcome.stdout:
        return Check("Ray starts", True, "a local instance started, ran a task and stopped")
    if outcome.status is None:
        fix = "see the logs in /tmp/ray/session_latest/logs; a proxy (http_proxy) or a firewall on localhost is the usual cause"
        return Check("Ray starts", False, f"no task done within {RAY_SECONDS} s", fix)
    return Check("Ray starts", False, outcome.reason, f'pip install --force-reinstall "{RAY}=={WANTED["ray"]}.*"')


def memory_check(available: float | None) -> Check:
    if available is None:
        return Check("memory", True, "unknown on this system")
    ok = available >= MEMORY_NEEDED
    fix = "" if ok else f"free memory or raise the container's limit: driver and a worker need {MEMORY_NEEDED / GB:.0f} GB and the tables"
    return Check("memory", ok, f"{available / GB:.1f} GB available", fix)


def disk_check(places: Mapping[str, tuple[int, int]]) -> Check:
    """`places`: (total, free) bytes of the disks that hold the working folder and Ray's temporary folder."""
    full = [place for place, (total, free) in places.items() if free < DISK_NEEDED or (total and 1 - free / total > RAY_DISK_LIMIT)]
    detail = ", ".join(f"{free / GB:.0f} GB free of {total / GB:.0f} GB in {place}" for place, (total, free) in places.items())
    fix = f"free space under {' and '.join(full)}, or set RAY_TMPDIR to a folder on another disk" if full else ""
    return Check("disk", not full, detail, fix)


def shm_check(size: float | None) -> Check:
    """Ray's object store lies in /dev/shm, or in slower files where that is too small (64 MB in a plain container)."""
    if size is None:
        return Check("shared memory", True, "no /dev/shm on this system")
    fix = "" if size >= SHM_WANTED else "start the container with --shm-size=4g (Kubernetes: an emptyDir with medium Memory)"
    return Check("shared memory", True, f"/dev/shm has {size / GB:.1f} GB", fix)


def bf16_check(flags: frozenset[str]) -> Check:
    units = sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    return Check("bf16 on the CPU", True, ", ".join(units) or "no bf16 units: leave train.precision at auto (fp32 here)")


def compiler_check(compiler: str | None) -> Check:
    if compiler:
        return Check("C++ compiler", True, f"{compiler}: SML's kernels are compiled at their first use")
    detail = "none: on a CPU the Meta Tanh Normalisation takes four times as long, as torch's operations"
    return Check("C++ compiler", True, detail, "install g++, as with apt install g++; or name another with CXX")


def gpu_check(gpus: Sequence[str], facts: Mapping[str, object]) -> Check:
    """Whether torch can use the `gpus` that the driver lists."""
    usable = facts.get("gpus") or []
    if not gpus and not usable:
        return Check("GPU", True, "none; training runs on the CPU")
    if len(usable) >= len(gpus):
        return Check("GPU", True, ", ".join(usable))
    if not facts.get("cuda"):
        return Check(
            "GPU",
            True,
            f"{', '.join(gpus)}; torch is a CPU build",
            f'to use it: pip install "torch=={WANTED["torch"]}.*" from the CUDA index',
        )
    fix = f"update the NVIDIA driver to one for CUDA {facts['cuda']}, or check CUDA_VISIBLE_DEVICES"
    return Check("GPU", False, f"the driver lists {len(gpus)} ({', '.join(gpus)}), torch can use {len(usable)}", fix)


def matches(version: str | None, wanted: str) -> bool:
    return version is not None and version.split("+")[0].split(".")[: wanted.count(".") + 1] == wanted.split(".")


def fbgemm_version(installed: Mapping[str, str]) -> str | None:
    return next((installed[name] for name in FBGEMM_BUILDS if name in installed), None)


# --- probes: what this machine is like


def installed_versions() -> dict[str, str]:
    return {name.lower().replace("_", "-"): d.version for d in distributions() if (name := d.metadata["Name"])}


def run_probe(code: str, seconds: float) -> Outcome:
    """Runs Python code in a process of its own; kills that and its children when the time is up."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=err, start_new_session=True)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            status = None
        for file in (out, err):
            file.seek(0)
        return Outcome(status, out.read().decode(errors="replace"), err.read().decode(errors="replace"))


def load_facts(load: Outcome) -> dict[str, object]:
    facts = {}
    for line in load.stdout.splitlines():
        if line.startswith("{"):
            facts |= json.loads(line)
    return facts


def driver_gpus() -> list[str]:
    """Names of the GPUs that the NVIDIA driver lists."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listing = subprocess.run([tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return []
    return listing.stdout.splitlines() if listing.returncode == 0 else []


def disks(places: Sequence[str]) -> dict[str, tuple[int, int]]:
    """(total, free) bytes of each disk, by the first of the places on it; for a folder that is not there yet, by its nearest parent."""
    there = [next(str(path) for path in (Path(place), *Path(place).absolute().parents) if path.exists()) for place in places]
    by_device = {Path(place).stat().st_dev: place for place in reversed(there)}
    return {place: shutil.disk_usage(place)[::2] for place in by_device.values()}


def available_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Bytes available to new processes: the machine's, or the container's if that is less.

    Inactive pages of files that a container has read count as available: the kernel frees them when memory is needed.
    """
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit = cgroup / "memory.max"
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        counts = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        free = min(free, int(text) - int((cgroup / "memory.current").read_text()) + int(counts["inactive_file"]))
    return free
