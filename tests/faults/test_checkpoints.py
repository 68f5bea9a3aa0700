"""A checkpoint exists whole or not at all: faults at every write, fsync and rename; flipped bits and cut files."""

import hashlib
import json
import random
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from sml_dist.spec import InputError, RunError
from sml_dist.train import shards
from sml_dist.train.checkpoint import FORMAT, MANIFEST, Damaged, newest, verify
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.finite import Diverged
from sml_dist.train.state import Piece
from sml_dist.train.storage import Storage
from tests.faults.faulty import Faulty, PowerCut
from tests.train.ranks import on_ranks

pytestmark = pytest.mark.faults
SIZES = {"t_a.weight": (300, 8), "t_b.weight": (17, 8), "model.w": (40, 30), "optim.w.step": ()}


def state(step: int) -> list[Piece]:
    """Every entry says its step; tables are split by rows between the ranks, the rest is replicated."""
    rank, workers, found = dist.get_rank(), dist.get_world_size(), []
    for name, whole in SIZES.items():
        if not name.startswith("t_"):
            found.append(Piece(name, torch.full(whole, float(step)), whole, (0,) * len(whole), whole, True))
            continue
        first, last = whole[0] * rank // workers, whole[0] * (rank + 1) // workers
        shape = (last - first, whole[1])
        found.append(Piece(name, torch.full(shape, float(step)), whole, (first, 0), shape))
    return found


def loaded(store: Checkpoints) -> tuple[int | None, set[float]]:
    """The newest sound checkpoint's step, and every different number in it."""
    found = store.latest()
    if found is None:
        return None, set()
    wanted = state(-1)
    found.reader.fill(wanted)
    return found.manifest["step"], {value for piece in wanted for value in piece.tensor.reshape(-1).tolist()}


def faults(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Saves step after step, each with a fault somewhere; then loads. Counts what was seen."""
    shards.CHUNK = 2048  # many writes
    threading.excepthook = lambda args: None if args.exc_type is PowerCut else threading.__excepthook__(args)
    choice = random.Random(seed)
    store = Checkpoints(Storage(folder))
    store.save(1, state(1), {})
    store.wait()
    store.storage = Faulty(folder)
    store.save(2, state(2), {})
    store.wait()
    operations, good, seen = store.storage.operations, 2, {"old": 0, "new": 0, "torn": 0, "operations": store.storage.operations}
    for step in range(3, count + 3):
        store.storage = Faulty(folder, choice.randrange(operations), choice.choice(["error", "cut"]), seed + step)
        store.save(step, state(step), {})
        try:
            store.wait()
        except RunError as error:
            # the new one, if only the sync after its rename failed
            assert any("could not be written" in str(error) and f"the last good one is step-{n:09d}" in str(error) for n in (good, step))
        store.storage = Storage(folder)
        found, numbers = loaded(store)
        if numbers == {float(good)} and found == good:
            seen["old"] += 1
        elif numbers == {float(step)} and found == step:
            seen["new"], good = seen["new"] + 1, step
        else:
            seen["torn"] += 1
    return seen


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_a_fault_at_any_write_fsync_or_rename_leaves_the_old_checkpoint_or_the_new_one(tmp_path, count):
    seen = on_ranks(1, faults, tmp_path / "c", count, 0)[0]
    print(seen)
    assert seen["torn"] == 0 and seen["old"] > 0 and seen["new"] > 0
    assert seen["old"] + seen["new"] == count and seen["operations"] > 15


def one_rank_fails(folder: Path) -> list[str]:
    """The second rank's disk fails: every rank hears of it, and the checkpoint before is there."""
    store = Checkpoints(Storage(folder))
    store.save(1, state(1), {})
    store.wait()
    store.storage = Faulty(folder, at=1) if dist.get_rank() == 1 else Faulty(folder)
    store.save(2, state(2), {})
    with pytest.raises(RunError) as error:
        store.wait()
    store.storage = Storage(folder)
    return [str(error.value), loaded(store)]


def test_a_failure_on_one_rank_is_raised_on_all_and_leaves_no_checkpoint(tmp_path):
    for message, found in on_ranks(2, one_rank_fails, tmp_path / "c"):
        assert "injected" in message and "step-000000001" in message and found == (1, {1.0})


def not_finite(folder: Path, value: float) -> list:
    store = Checkpoints(Storage(folder))
    bad = state(1)
    if dist.get_rank() == 1:
        bad[1].tensor[3, 2] = value
    store.save(1, bad, {})
    with pytest.raises(Diverged, match="t_b.weight holds a number that is not finite"):
        store.wait()
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_never_committed(tmp_path, value):
    assert on_ranks(2, not_finite, tmp_path / "c", value) == [[], []]


def damages(folder: Path, count: int) -> dict[str, int]:
    """Flips a bit or cuts a file of the newest of two checkpoints at a random byte, and mends it again."""
    choice = random.Random(1)
    store = Checkpoints(Storage(folder))
    for step in (1, 2):
        store.save(step, state(step), {"progress": {"epoch": 3, "batch": 17, "best": 0.75}})
        store.wait()
    newest = folder / "step-000000002"
    files, seen = sorted(newest.iterdir()), {"refused by name": 0, "the one before loads": 0}
    for _ in range(count):
        file = choice.choice(files)
        whole = file.read_bytes()
        at = choice.randrange(len(whole))
        damaged = whole[:at] if choice.random() < 0.3 else whole[:at] + bytes([whole[at] ^ 1 << choice.randrange(8)]) + whole[at + 1 :]
        file.write_bytes(damaged)
        try:
            verify(store.storage, newest.name)
        except Damaged as error:
            seen["refused by name"] += str(file) in str(error)
        seen["the one before loads"] += loaded(store) == (1, {1.0})
        file.write_bytes(whole)
    assert loaded(store) == (2, {2.0})
    return seen


def test_a_flipped_bit_or_a_cut_file_is_refused_by_name_and_the_one_before_loads(tmp_path):
    assert on_ranks(1, damages, tmp_path / "c", 300) == [{"refused by name": 300, "the one before loads": 300}]


def kept(folder: Path) -> list[str]:
    store = Checkpoints(Storage(folder), keep=2)
    (folder / ".partial-of-a-crash").mkdir(parents=True, exist_ok=True)
    dist.barrier()
    for step in (1, 2, 3, 4):
        store.save(step, state(step), {}, best=1)
        store.wait()
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_and_the_best_are_kept_and_what_a_crash_left_is_swept(tmp_path):
    assert on_ranks(2, kept, tmp_path / "c") == [["step-000000001", "step-000000003", "step-000000004"]] * 2


def fallen_back(folder: Path) -> list:
    """The newest of three is damaged: what is left, the step that loads, and whether the one that was its best loads too."""
    store = Checkpoints(Storage(folder), keep=2)
    for step, best in ((13, 13), (26, 13), (39, 39)):
        store.save(step, state(step), {"progress": {"best_step": best}}, best=best)
        store.wait()
    next((folder / "step-000000039").glob("*.safetensors")).unlink()
    found = store.latest()
    best = store.at(found.manifest["progress"]["best_step"])
    store.save(27, state(27), {"progress": {"best_step": 27}}, best=27)
    store.wait()
    store.save(28, state(28), {"progress": {"best_step": 27}}, best=27)
    store.wait()
    return [found.manifest["step"], best.manifest["step"], sorted(path.name for path in folder.iterdir())]


def test_a_checkpoint_that_a_run_may_have_to_go_back_to_has_its_best_one_kept_too(tmp_path):
    assert on_ranks(1, fallen_back, tmp_path / "c") == [[26, 13, ["step-000000027", "step-000000028"]]]


def saved(folder: Path, *steps: int) -> Checkpoints:
    store = Checkpoints(Storage(folder, waits=()))
    for step in steps:
        store.save(step, state(step), {})
        store.wait()
    return store


def bytes_told(folder: Path) -> int:
    return saved(folder, 1).take_written()["bytes"]


def test_the_bytes_told_of_a_checkpoint_are_all_workers(tmp_path):
    whole = 4 * (300 * 8 + 17 * 8 + 40 * 30 + 1)
    assert on_ranks(2, bytes_told, tmp_path) == [whole, whole]


def none_sound(folder: Path) -> list[str]:
    store = saved(folder, 1, 2)
    dist.barrier()
    if dist.get_rank() == 0:
        for file in folder.glob("step-*/rank-00000.safetensors"):
            file.write_bytes(file.read_bytes()[:-1])
    dist.barrier()
    with pytest.raises(InputError) as error:
        store.latest()
    return [str(error.value), *sorted(path.name for path in folder.iterdir())]


def test_where_all_checkpoints_are_damaged_nothing_is_begun_anew_in_their_place(tmp_path):
    """Each of two ranks hashes a file of its own."""
    newest = tmp_path / "c/step-000000002/rank-00000.safetensors"
    line = f"no checkpoint of {tmp_path}/c is sound: {newest} is damaged (its SHA-256 is not the manifest's); "
    line += f"put its files back, move {tmp_path}/c away, or name another run"
    assert on_ranks(2, none_sound, tmp_path / "c") == [[line, "step-000000001", "step-000000002"]] * 2


def to_another_format(checkpoint: Path) -> str:
    """What is said of it, but for the way out."""
    path = checkpoint / MANIFEST
    manifest = json.loads(path.read_text()) | {"format": FORMAT + 1}
    manifest["versions"]["sml-dist"] = "9.8"
    del manifest["sha256"]
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(manifest))
    return f"{path} is of format {FORMAT + 1}, which sml-dist 9.8 wrote; this version reads {FORMAT}"


def of_another_format(folder: Path) -> list[str]:
    store = saved(folder, 1, 2)
    dist.barrier()
    if dist.get_rank() == 0:
        to_another_format(folder / "step-000000002")
    dist.barrier()
    said = []
    for refused in (store.latest, lambda: store.at(2), lambda: newest(store.storage)):
        with pytest.raises(InputError) as error:
            refused()
        said.append(str(error.value))
    store.save(3, state(3), {})  # which leaves alone what it cannot read
    store.wait()
    return said


def test_a_checkpoint_of_another_format_is_not_passed_over_as_damaged_but_said_to_be_of_another_version(tmp_path):
    for said in on_ranks(2, of_another_format, tmp_path / "c"):
        where = f"{tmp_path}/c/step-000000002/{MANIFEST} is of format {FORMAT + 1}, which sml-dist 9.8 wrote; this version reads {FORMAT}"
        assert said == [f"{where}: take that version, move {tmp_path}/c away, or name another run"] * 3


def test_any_safetensors_reader_reads_the_files(tmp_path):
    from safetensors.torch import load_file

    tensors = {"a": torch.randn(5, 3), "b": torch.arange(4), "c": torch.tensor(2.5), "d": torch.randn(2).bfloat16()}
    found = [Piece(n, t, tuple(t.shape), (0,) * t.dim(), tuple(t.shape)) for n, t in tensors.items()]
    Storage(tmp_path).write("x.safetensors", lambda: shards.chunks(found))
    read = load_file(tmp_path / "x.safetensors")
    for name, tensor in tensors.items():
        stored = read[shards.key(name, (0,) * tensor.dim())]
        assert stored.dtype == tensor.dtype and stored.equal(tensor)
