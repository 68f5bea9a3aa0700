"""What a run is doing, read from its folder by anyone who sees it: no Ray, and nothing of the machine that it runs on."""

import contextlib
import json
import re
import time
from functools import partial
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from sml_dist.data.files import file_system
from sml_dist.held import left
from sml_dist.spec import InputError
from sml_dist.train.run_folder import objects
from sml_dist.train.storage import tried
from sml_dist.train.watchdog import DONE, NOTE, START_SECONDS

WAITS = (0.2,)  # seconds before a read that failed is tried again: a file of a network's may just have been put in another's place
STALE_SECONDS = 60.0  # without a word from worker 0, which speaks every five
SHOWN = ("loss", "samples_per_second", "data_wait_fraction")


def run_status(folder: str, now: float | None = None) -> dict[str, Any]:
    """`state` is starting, alive, stopped, stalled, failed or done; steps, `eta_seconds`, last figures and checkpoint as far as known.

    Stopped is a run that is not done and whose folder no command holds, as far as this machine can tell. The checkpoint is the
    folder's newest, of which metrics.jsonl may not tell yet. `valid_auc` and `valid_logloss` are the last evaluation's, and of a run
    that is done those of its summary, the best one's. The clocks of this machine and of the run's should agree to some seconds.
    Raises InputError for what is no run's folder.
    """
    now = now or time.time()
    fs, path = file_system(folder)
    read = partial(_read, fs, path)
    gone = isinstance(fs, LocalFileSystem) and left(path)  # asked first: a run that ends while the rest is read is done, not stopped
    note, error, summary = (_json(f"{folder}/{name}", read(name)) for name in (NOTE, "error.json", "summary.json"))
    lines = list(objects(read("metrics.jsonl").decode(errors="replace").splitlines()))  # but for torn ones, as the last may be
    if not (note or lines or error or summary):
        raise InputError(f"{folder} is no run's folder, or no worker has started yet (no {NOTE})")
    heard = max([each["time"] for each in (note, *lines[-1:]) if each], default=0.0)
    found = {"run": folder, "state": state(note, error, summary, heard, now), "doing": (note or {}).get("doing")}
    if heard:
        found["heard_seconds_ago"] = round(max(0.0, now - heard), 1)
    found |= (error or {}) | progress(lines) | checkpoint(fs, f"{path}/checkpoints", now)
    if found["state"] in ("starting", "alive", "stalled") and gone:
        found["state"] = "stopped"
    if found["state"] == "done":
        return found | validation((summary or {}).get("valid", {}))
    return found | ({"eta_seconds": eta(lines, now)} if found["state"] == "alive" else {})


def state(note: dict | None, error: dict | None, summary: dict | None, heard: float, now: float) -> str:
    if error:
        return "failed"
    if summary if note is None else note["doing"] == DONE:
        return "done"
    starting = note is not None and note["doing"] == "starting"
    if now - heard > (START_SECONDS if starting else STALE_SECONDS):
        return "stalled"
    return "starting" if starting else "alive"


def progress(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The last word on each thing."""
    found: dict[str, Any] = {"restarts": 0}
    for line in lines:
        event = line.get("event")
        if event is None:
            found |= {key: line[key] for key in ("step", "total_steps", "epoch", "epochs") if key in line}
            found |= validation(line) if "split" in line else {}
            found |= {key: line[key] for key in SHOWN if key in line}
        elif event == "resumed":
            found["restarts"] = line.get("restarts", found["restarts"] + 1)
    return found


def checkpoint(fs: AbstractFileSystem, folder: str, now: float) -> dict[str, Any]:
    """The newest one's step and age; nothing where there is none, or where the file system does not tell."""
    with contextlib.suppress(OSError, NotImplementedError):
        names = [path.rpartition("/")[2] for path in fs.ls(folder, detail=False)]
        for name in sorted(filter(re.compile(r"step-\d+").fullmatch, names), reverse=True):
            with contextlib.suppress(FileNotFoundError):  # without a manifest it is damaged, and passed over by training too
                made = fs.modified(f"{folder}/{name}/MANIFEST.json").timestamp()
                return {"checkpoint_step": int(name.removeprefix("step-")), "checkpoint_age_seconds": round(max(0.0, now - made), 1)}
    return {}


def validation(metrics: dict[str, Any]) -> dict[str, float]:
    return {f"valid_{key}": metrics[key] for key in ("auc", "logloss") if metrics.get(key) is not None}


def eta(lines: list[dict[str, Any]], now: float) -> float | None:
    """Seconds to the last step at the pace since the run last started or went on, evaluations and checkpoints included."""
    resumed = [number for number, line in enumerate(lines) if line.get("event") == "resumed"]
    steps = [line for line in lines[resumed[-1] if resumed else 0 :] if "event" not in line and "step" in line]
    if len(steps) < 2 or steps[-1]["step"] == steps[0]["step"]:
        return None
    first, last = steps[0], steps[-1]
    pace = (last["time"] - first["time"]) / (last["step"] - first["step"])
    return round(max(0.0, (last["total_steps"] - last["step"]) * pace - (now - last["time"])), 1)


def _json(file: str, text: bytes) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except ValueError:
        raise InputError(f"{file} is damaged: not JSON") from None


def _read(fs: AbstractFileSystem, path: str, name: str) -> bytes:
    """The file's bytes, none where there is no such file."""
    try:
        return tried(lambda: fs.cat_file(f"{path}/{name}"), WAITS, missing=True)
    except (FileNotFoundError, NotADirectoryError):
        return b""
