"""`prepare` under kills and full disks: the dataset of an undisturbed run, byte for byte, or a folder that nobody takes for one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sml_dist.data import dataset, fit, survey, vocab, write
from sml_dist.data.dataset import MANIFEST, read_manifest
from sml_dist.data.prepare import prepare
from sml_dist.spec import InputError, RunError
from tests.data.raw_logs import clicks, to_text, write_schema
from tests.faults.serial import check_dataset, check_line, contents, without_ray

pytestmark = pytest.mark.faults
long = pytest.mark.long

ROWS, BAD = 400, 40
OPTIONS = {"split": "random:0.6,0.2,0.2", "max_reject_rate": 0.2}
PARTS = {"part_bytes": 2500}  # about nine parts


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A schema, a log with a bad row after every tenth good one, and the folder of an undisturbed prepare."""
    folder = tmp_path_factory.mktemp("logs")
    header, *lines = to_text(clicks(ROWS)).splitlines(keepends=True)
    every = ROWS // BAD
    body = [line + ("maybe" + line if number % every == 0 else "") for number, line in enumerate(lines)]
    (folder / "a.csv").write_text(header + "".join(body))
    return write_schema(folder), str(folder / "a.csv")


@pytest.fixture(scope="module")
def undisturbed(logs, tmp_path_factory):
    """SHA-256 of every file of the undisturbed dataset, by part_bytes given or not."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        for name, options in (("parts", PARTS), ("whole", {})):
            out = tmp_path_factory.mktemp("undisturbed") / "out"
            manifest = prepare(logs[0], str(out), inputs=logs[1], **OPTIONS, **options)
            check_dataset(out, manifest)
            assert (manifest.rows_read, manifest.rows_rejected) == (ROWS + BAD, BAD)
            found[name] = contents(out)
    return found


# ---- a task's process is killed


def first_time(mark: str) -> bool:
    """Whether this process is the first to come here: no other makes the same file."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # this thread may run on for a moment after the others


def dying(module: str, name: str, chosen: set[int], marks: str, driver: int):
    """The module's function, which kills its own process once for each chosen task, in the middle of its work."""

    def dies(argument, *rest, **named):
        function = getattr(import_module(module), name)  # the worker's own: the driver's is this one
        number = argument[0].start if name == "survey_part" else argument if name == "merge_one" else argument[0]
        if number in chosen and first_time(f"{marks}/{name}-{number}"):
            assert os.getpid() != driver, "the task runs in the driver"
            owner, step, before = MIDDLE[name]
            done = getattr(owner, step)
            setattr(owner, step, lambda *values, **options: (before or done(*values, **options), die()))
        return function(argument, *rest, **named)

    return dies


# For each task the step in its middle after which its process dies (or before, where so marked).
MIDDLE = {
    "survey_part": (survey, "count_rows", False),
    "fit_part": (vocab.TokenCounter, "spill", False),
    "merge_one": (vocab, "_write_groups", False),
    "finish_one": (vocab, "_first_of_hash", True),
    "write_part": (dataset.SplitWriter, "__exit__", False),  # one file of the part has its name, the others are partial
}
STAGES = {name: module for module, names in ((survey, ["survey_part"]), (fit, ["fit_part", "merge_one", "finish_one"])) for name in names}
STAGES |= {"write_part": write}


FEW = {"survey_part": {5000}, "fit_part": {1}, "merge_one": set(), "finish_one": {2}, "write_part": {3}}
MANY = {"survey_part": {0, 2500, 7500}, "fit_part": {0, 4, 5}, "merge_one": {0}, "finish_one": {0, 3}, "write_part": {0, 2, 5}}


@pytest.mark.parametrize("chosen", [FEW, pytest.param(MANY, marks=long)], ids=["few", "many"])
def test_a_task_killed_once_in_every_stage_is_done_again_without_a_trace(tmp_path, monkeypatch, logs, undisturbed, ray_local, chosen):
    """Tasks by the first byte of their part (survey), or by the number of their part, range or field."""
    marks = tmp_path / "marks"
    marks.mkdir()
    for name, module in STAGES.items():
        monkeypatch.setattr(module, name, dying(module.__name__, name, chosen[name], str(marks), os.getpid()))
    manifest = prepare(logs[0], str(tmp_path / "out"), inputs=logs[1], **OPTIONS, **PARTS)
    assert len(list(marks.iterdir())) == sum(map(len, chosen.values()))
    check_dataset(tmp_path / "out", manifest)
    assert contents(tmp_path / "out") == undisturbed["parts"]


def recorded(function, running: str):
    """`function`, with a file for each task at work, named by its process."""

    def records(*arguments, **named):
        path = f"{running}/{os.getpid()}"
        Path(path).touch()
        try:
            return function(*arguments, **named)
        finally:
            os.unlink(path)

    return records


class Killer(threading.Thread):
    """After `delay` seconds kills the process of a task that is at work then, or of the next one; stops with the prepare."""

    def __init__(self, running: Path, delay: float, draw: random.Random):
        super().__init__(daemon=True)
        self.running, self.delay, self.draw, self.killed, self.over = running, delay, draw, 0, threading.Event()

    def run(self) -> None:
        self.over.wait(self.delay)
        while not self.over.is_set():
            if pids := sorted(path.name for path in self.running.iterdir()):
                with suppress(ProcessLookupError):
                    os.kill(int(self.draw.choice(pids)), signal.SIGKILL)
                    self.killed = 1
                    return
            time.sleep(0.0005)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=long) for seed in range(1, 20))])
def test_a_task_killed_at_any_moment_is_done_again_without_a_trace(tmp_path, monkeypatch, logs, undisturbed, ray_local, seed):
    draw, running = random.Random(seed), tmp_path / "running"
    running.mkdir()
    for name, module in STAGES.items():
        monkeypatch.setattr(module, name, recorded(getattr(module, name), str(running)))
    for attempt in range(10):  # where the delay was longer than the prepare, a shorter one
        killer = Killer(running, draw.uniform(0, 1.5) / 2**attempt, draw)
        killer.start()
        manifest = prepare(logs[0], str(tmp_path / f"out{attempt}"), inputs=logs[1], **OPTIONS, **PARTS)
        killer.over.set()
        killer.join()
        check_dataset(tmp_path / f"out{attempt}", manifest)
        assert contents(tmp_path / f"out{attempt}") == undisturbed["parts"]
        if killer.killed:
            return
    raise AssertionError("no task was killed")


def test_two_tasks_that_write_one_path_at_a_time_leave_one_whole_file(tmp_path):
    """As when Ray takes a node for dead that is not, and runs its task elsewhere."""
    table = pa.table({"label": np.zeros(10, np.float32)})
    first, second = (dataset.SplitWriter(str(tmp_path), "train/part-00000.parquet", table.schema) for _ in range(2))
    with first:
        first.write(table.slice(0, 4))
        with second:
            second.write(table)
        first.write(table.slice(4))
    assert first.file == second.file
    assert contents(tmp_path) == {first.file.path: first.file.sha256}


@long
def test_a_task_that_kills_every_worker_ends_in_one_line_and_no_dataset(tmp_path, monkeypatch, logs, ray_local):
    write_part = write.write_part
    monkeypatch.setattr(write, "write_part", lambda numbered, job: die() if numbered[0] == 1 else write_part(numbered, job))
    with pytest.raises(RunError) as error:
        prepare(logs[0], str(tmp_path / "out"), inputs=logs[1], **OPTIONS, **PARTS)
    check_line(error.value, "a worker died at the same task 6 times")
    with pytest.raises(InputError, match="is not a prepared dataset"):
        read_manifest(str(tmp_path / "out"))


# ---- the driver is killed

COMMAND = "import sys; from sml_dist.cli import main; sys.argv[0] = 'sml-dist'; main()"


def command(logs, out: Path) -> list[str]:
    options = ["--split", OPTIONS["split"], "--max-reject-rate", str(OPTIONS["max_reject_rate"]), "--overwrite"]
    return [sys.executable, "-c", COMMAND, "prepare", "--schema", logs[0], "--input", logs[1], "--output", str(out), *options]


def environment(ray_local, own_ray: bool) -> dict[str, str]:
    joined = {} if own_ray else {"RAY_ADDRESS": ray_local.get_runtime_context().gcs_address}
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | joined


def wait_for(condition, process, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)


def killed_at(logs, out: Path, delay: float, env: dict[str, str]) -> bool:
    """Runs the command and kills it `delay` seconds after it took the folder; whether that came before its end."""
    shutil.rmtree(out, ignore_errors=True)
    process = subprocess.Popen(command(logs, out), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: out.exists() and any(out.iterdir()), process)
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    if alive := process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return alive


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=long) for seed in range(1, 10))])
def test_a_prepare_killed_at_any_moment_leaves_all_or_nothing_and_begins_anew(tmp_path, logs, undisturbed, ray_local, seed):
    """Most join a running Ray, whose workers outlive the driver; of the long ones even seeds start and lose a Ray of their own."""
    draw, out = random.Random(seed), tmp_path / "out"
    env = environment(ray_local, own_ray=seed > 0 and seed % 2 == 0)
    assert any(killed_at(logs, out, draw.uniform(0, 1.2) / 2**attempt, env) for attempt in range(8))
    try:
        read_manifest(str(out))
    except InputError as error:
        check_line(error, str(out))
    else:
        complete = contents(out)
        assert undisturbed["whole"].items() <= complete.items() and complete.keys() - undisturbed["whole"].keys() <= {"INCOMPLETE"}
    again = subprocess.run(command(logs, out), env=env, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert contents(out) == undisturbed["whole"]


# ---- the disk is full, or may not be written


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount {' '.join(arguments)}: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk))
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def leave_free(disk: Path, free: int) -> None:
    """A ballast of all but `free` bytes (whole pages)."""
    (disk / "ballast").unlink(missing_ok=True)
    room = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(bytes(max(room - free, 0)))


def refused(out: Path, run) -> None:
    with pytest.raises(InputError) as error:
        run()
    check_line(error.value, f"--output {out} cannot be written: ")
    with pytest.raises(InputError, match="is not a prepared dataset"):
        read_manifest(str(out))


def test_a_disk_that_fills_at_any_byte_is_named_and_room_is_all_it_takes(logs, undisturbed, small_disk, monkeypatch):
    """From no room to enough, three pages at a time: it fills at the mark, the counts, the vocabularies, the rows, the manifest."""
    without_ray(monkeypatch)
    out, reasons = small_disk / "out", 0
    run = lambda: prepare(logs[0], str(out), inputs=logs[1], **OPTIONS, **PARTS)  # noqa: E731
    for free in range(0, 1 << 20, 12_288):
        leave_free(small_disk, free)
        try:
            run()
        except InputError as error:
            check_line(error, f"--output {out} cannot be written: No space left on device")
            with pytest.raises(InputError, match="is not a prepared dataset"):
                read_manifest(str(out))
            reasons += 1
        else:
            break
    assert reasons > 10
    assert contents(out) == undisturbed["parts"]


@long
def test_the_command_on_a_full_or_read_only_disk_says_so_and_succeeds_later(logs, undisturbed, small_disk, ray_local):
    out, env = small_disk / "out", environment(ray_local, own_ray=False)

    def run() -> subprocess.CompletedProcess:
        return subprocess.run(command(logs, out), env=env, capture_output=True, text=True, timeout=120, check=False)

    for reason in ("No space left on device", "Read-only file system"):
        if reason.startswith("Read"):
            mount("-o", "remount,ro", str(small_disk))
        else:
            leave_free(small_disk, 60_000)
        done = run()
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert len(done.stderr.splitlines()) == 1 and f"--output {out} cannot be written: {reason}" in done.stderr
        assert not (out / MANIFEST).exists()
    mount("-o", "remount,rw", str(small_disk))
    (small_disk / "ballast").unlink()
    done = run()
    assert done.returncode == 0, done.stderr
    assert contents(out) == undisturbed["whole"]


def test_a_folder_that_may_not_be_written_is_named(logs, tmp_path, monkeypatch):
    without_ray(monkeypatch)
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        folder = Path("/proc")  # root writes where it likes, but not here
    out = folder / "out"
    refused(out, lambda: prepare(logs[0], str(out), inputs=logs[1], **OPTIONS))
