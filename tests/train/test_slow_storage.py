"""The watchdog on slow disks: it stops a worker whose disk hangs, and none whose own or whose neighbour's disk is merely slow."""

import itertools
import json
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessException

from sml_dist.config.run import parse
from sml_dist.data.stream import DirectStream
from sml_dist.train import shards, storage
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.place import Place
from sml_dist.train.storage import Storage
from sml_dist.train.worker import train_watched
from tests.faults.test_checkpoints import state
from tests.train.ranks import on_ranks

TIMEOUT = 4.0


@pytest.fixture(scope="module")
def dataset(synthetic) -> str:
    return synthetic(2_000, fields=4, dense=2, table_rows=1_000)


def on_a_slow_disk(dataset: str, folder: Path, *, hangs: bool, **train) -> dict:
    """A run of two workers. The disk of worker 1 takes 0.3 s for each half a KiB that it writes, or hangs at a sync."""
    if dist.get_rank() == 1:
        shards.CHUNK, put, sync = 512, Storage.put, Storage.sync
        Storage.put = lambda self, file, chunk: (time.sleep(0.3), put(self, file, chunk))
        Storage.sync = lambda self, handle: (threading.Event().wait() if hangs else None, sync(self, handle))
    settings = {"num_workers": 2, "global_batch_size": 96, "max_steps": 5, "threads": 1, "step_timeout_s": TIMEOUT, "device": "cpu"}
    raw = {
        "run": {"name": "slow", "storage": str(folder)},
        "data": {"path": dataset, "streams": 4},
        "model": {"name": "lr"},
        "embedding": {"sharding": "row_wise", "dim": 8},
        "train": settings | train,
    }
    return train_watched(parse(raw), Place(dist.get_rank(), 2, 2), DirectStream)


def slow(dataset: str, folder: Path, background: bool) -> dict:
    return on_a_slow_disk(dataset, folder, hangs=False, checkpoint_in_background=background)


def hung(dataset: str, folder: Path) -> dict:
    return on_a_slow_disk(dataset, folder, hangs=True)


@pytest.mark.parametrize("background", [True, False])
def test_a_worker_that_writes_slowly_is_not_stopped_nor_is_one_that_waits_for_it(dataset, tmp_path, background):
    for summary in on_ranks(2, slow, dataset, tmp_path, background):
        assert summary["steps"] == 5 and summary["seconds_by_phase"]["checkpoint"] > TIMEOUT, "the disk was too quick to tell"
    lines = [json.loads(line) for line in (tmp_path / "slow/metrics.jsonl").read_text().splitlines()]
    [saved] = [line for line in lines if line.get("event") == "checkpoint"]
    assert background or saved["blocked_seconds"] == saved["seconds"] > TIMEOUT


def test_a_worker_whose_disk_hangs_is_stopped_and_no_other(dataset, tmp_path):
    with pytest.raises(ProcessException):
        on_ranks(2, hung, dataset, tmp_path)
    [note] = (tmp_path / "slow/stacks").iterdir()
    text = note.read_text()
    assert text.startswith("worker 1 (process") and f"no progress for {TIMEOUT:g} s; its last was" in text
    assert "checkpoints.py" in text, text  # where it stood


def beats(folder: Path) -> tuple[dict[str, tuple[int, float]], set[float]]:
    """How many, and the longest time without one, of each rank while it waits for a checkpoint to be found and loaded and for the other
    rank; the second rank's disk takes a second more to read from.
    """
    storage.CHUNK = shards.CHUNK = 1024
    heard, count = [time.monotonic()], {}

    def beat() -> None:
        heard.append(time.monotonic())

    def since() -> tuple[int, float]:
        nonlocal heard
        before, heard = [*heard, time.monotonic()], [time.monotonic()]
        return len(before) - 2, max(after - moment for moment, after in itertools.pairwise(before))

    class Slow(Storage):
        def sha256(self, name: str) -> str:
            time.sleep(1)
            return super().sha256(name)

    store = Checkpoints((Slow if dist.get_rank() == 1 else Storage)(folder, beat=beat))
    store.save(1, state(1), {})
    store.wait()
    since()
    found = store.latest()
    count["find"] = since()
    wanted = state(-1)
    found.reader.fill(wanted)
    count["load"] = since()
    if dist.get_rank() == 1:
        time.sleep(1)
    store.meet()
    count["meet"] = since()
    return count, {value for piece in wanted for value in piece.tensor.reshape(-1).tolist()}


def test_who_reads_a_checkpoint_or_waits_for_who_reads_more_is_seen_to_get_on(tmp_path):
    (waiting, first), (reading, second) = on_ranks(2, beats, tmp_path)
    assert first == second == {1.0}
    assert waiting["find"][1] < 0.8 and waiting["meet"][1] < 0.8, "the first rank waits for a second"
    assert reading["find"][0] >= 5 and reading["load"][0] >= 10, "a beat for each chunk"


class Counting(Storage):
    syncs = 0

    def sync(self, handle: int) -> None:
        self.syncs += 1
        super().sync(handle)


def test_a_large_file_is_synced_as_it_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "SYNC_EVERY", 1000)
    kept = Counting(tmp_path)
    kept.write("x", lambda: [b"x" * 400] * 10)
    assert (kept.syncs, kept.moved, (tmp_path / "x").read_bytes()) == (4, 4000, b"x" * 4000)
