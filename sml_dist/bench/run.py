"""Cases measured one after another, each in a process of its own, so that none meets another's threads, memory or Ray."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from joblib import cpu_count

from sml_dist.session import LOCAL_ENVIRONMENT
from sml_dist.spec import InputError, RunError
from sml_dist.train.code import versions

RAISED = re.compile(r"[\w.]*(Error|Exception)\b")  # a traceback's last line; processes of Ray may write below it
WORK = "bench.work"  # the cases' own folder within that of the results: they clear in it what they want


def run(names: list[str], folder: Path, rounds: int | None, told: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """{"machine": ..., "cases": [result, ...], "failed": {case: why}}: one that fails takes no other with it."""
    work = folder / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder} cannot be written ({error.strerror})") from None
    before = machine()  # its load is others', not that of the cases
    found, failed = [], {}
    for name in names:
        told(f"measuring {name}")
        try:
            found.append(alone(name, work, rounds))
        except RunError as error:
            failed[name] = str(error)
            told(f"{name} failed: {error}")
    return {"machine": before, "cases": found, "failed": failed}


def alone(name: str, folder: Path, rounds: int | None) -> dict[str, Any]:
    """One case in a child, whose environment is that of Ray's local workers."""
    output = folder / f"{name}.json"
    output.unlink(missing_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "sml_dist.bench.child", name, str(folder), str(output), str(rounds or 0)]
    started = time.monotonic()
    child = subprocess.run(command, env=LOCAL_ENVIRONMENT | os.environ, capture_output=True, text=True)
    # What was measured counts, however the process ends: Ray Data 2.60 leaves threads of a pipeline that was not read to its
    # end, and one that calls Ray after its end takes the process with it.
    if not output.is_file():
        lines = child.stderr.strip().splitlines() or [f"exit status {child.returncode}"]
        raise RunError(next((line for line in reversed(lines) if RAISED.match(line)), lines[-1]))
    return json.loads(output.read_text()) | {"seconds": round(time.monotonic() - started, 1)}


def machine() -> dict[str, Any]:
    models = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "python": platform.python_version(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "versions": versions(),
    }
