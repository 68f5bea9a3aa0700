"""Storage that is full, read-only, or fails for a while: one clear line or recovery, and the last checkpoint loads."""

import contextlib
import errno
import os
import subprocess
import threading
from pathlib import Path

import pytest

from sml_dist.spec import InputError, RunError
from sml_dist.train.alone import train_alone
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.launch import launch
from sml_dist.train.storage import Storage
from tests.faults.runs import config, rows_used_once
from tests.faults.test_checkpoints import loaded, state
from tests.train.ranks import on_ranks

pytestmark = pytest.mark.faults


class Flaky(Storage):
    """The first `failures` writes fail."""

    def __init__(self, root: Path, failures: int):
        super().__init__(root, waits=(0.01,) * 5)
        self.failures = failures

    def put(self, file, chunk) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(5, "the store is away")
        super().put(file, chunk)


def saved_through(folder: Path, failures: int) -> list:
    store = Checkpoints(Storage(folder))
    store.save(1, state(1), {})
    store.wait()
    store.storage = Flaky(folder, failures)
    store.save(2, state(2), {})
    try:
        store.wait()
    except RunError as error:
        return [str(error), loaded(store)]
    return ["", loaded(store)]


def test_a_store_that_fails_three_times_is_tried_again(tmp_path):
    assert on_ranks(2, saved_through, tmp_path, 3) == [["", (2, {2.0})]] * 2


def test_a_store_that_stays_away_is_named_and_the_checkpoint_before_loads(tmp_path):
    for message, found in on_ranks(2, saved_through, tmp_path, 1000):
        assert "after 6 tries: the store is away; the last good one is step-000000001" in message and found == (1, {1.0})


def test_a_stale_handle_does_not_pass_for_a_run_without_checkpoints(tmp_path, monkeypatch):
    """A run that found none would begin anew, and its first checkpoint sweep away those that are there."""
    (tmp_path / "step-000000002").mkdir()

    def stale(path, *more, **given):
        nonlocal failures
        if str(path) == str(tmp_path) and failures:
            failures -= 1
            raise OSError(errno.ESTALE, "Stale file handle")
        return call(path, *more, **given)

    for name in ("stat", "listdir"):
        with monkeypatch.context() as patched:
            call, failures = getattr(os, name), 2
            patched.setattr(os, name, stale)
            assert Storage(tmp_path, waits=(0.01,) * 5).names() == ["step-000000002"]
    assert Storage(tmp_path / "none").names() == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("mounting a small file system needs root and a kernel that lets it")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.fixture(scope="module")
def dataset(synthetic) -> str:
    """Tables of 8,000 rows: 8 x 4 bytes a row and 4 of state make a checkpoint of 0.3 MB."""
    return synthetic(20_000, fields=6, dense=4, table_rows=8_000)


def test_a_full_disk_ends_the_run_with_one_line_and_with_room_the_same_command_goes_on(ray_local, dataset, small_disk):
    each = config(dataset, small_disk, "full")
    with pytest.raises(RunError) as error:
        launch(each)
    assert "\n" not in str(error.value) and "No space left on device" in str(error.value), error.value
    assert "the last good one is step-" in str(error.value)
    remount(small_disk, "size=16m")
    summary = launch(each)
    assert summary["restarts"] >= 1
    rows_used_once(each)


def test_a_folder_that_cannot_be_written_is_refused_before_a_worker_starts(ray_local, dataset, small_disk):
    remount(small_disk, "ro")
    with pytest.raises(InputError, match=r"run.storage: .*/disk/x cannot be written \(Read-only file system\); mend it"):
        launch(config(dataset, small_disk, "x"))


def test_a_disk_that_has_room_again_in_time_only_delays_a_checkpoint(dataset, small_disk):
    """Something else fills the disk in mid-run and goes away three seconds later."""
    remount(small_disk, "size=16m")
    each, done = config(dataset, small_disk, "delayed"), threading.Event()

    def crowd() -> None:
        while not list(small_disk.glob("delayed/checkpoints/step-*")):
            if done.wait(0.05):
                return
        with contextlib.suppress(OSError), open(small_disk / "crowd", "wb") as file:
            file.write(b"x" * (16 << 20))
        done.wait(3)
        (small_disk / "crowd").unlink()

    thread = threading.Thread(target=crowd)
    thread.start()
    summary = train_alone(each)
    done.set()
    thread.join()
    assert summary["restarts"] == 0
    rows_used_once(each)
