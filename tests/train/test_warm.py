"""A run started from another's checkpoint: rows matched by value, tables that grew, fields that came and went."""

import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sml_dist.config.run import RunConfig, parse
from sml_dist.data.dataset import fingerprint, read_manifest
from sml_dist.data.prepare import prepare
from sml_dist.data.vocab import read_tokens
from sml_dist.spec import InputError, to_dict
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.keeper import Keeper
from sml_dist.train.loop import Progress, Trainer
from sml_dist.train.place import Place
from sml_dist.train.shards import CheckpointReader, chunks, index_of
from sml_dist.train.state import Piece, fused, pieces
from sml_dist.train.storage import Storage
from sml_dist.train.warm import Match, take_rows, warm_start
from tests.data.histories import prepared
from tests.faults.serial import without_ray
from tests.faults.test_checkpoints import to_another_format
from tests.train.ranks import make_trainer, on_ranks, weights

SCHEMA = """
name: shop
format: csv
label: click
numeric: [{{columns: price}}]
categorical:
  - {{columns: [{vocabulary}], min_count: 1}}
  - {{columns: device, hash: {hash}}}
"""


def logs(path: Path, rows: int, columns: list[str], values: int, seed: int) -> str:
    draw = np.random.default_rng(seed)
    lines = [",".join(["click", "price", "device", *columns])]
    for _ in range(rows):
        tokens = [f"{name}{draw.zipf(1.4) % values}" for name in columns]
        lines.append(",".join([str(draw.integers(2)), str(draw.integers(9)), f"d{draw.integers(99)}", *tokens]))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> tuple[str, str]:
    """Yesterday's with sites and users, today's with more sites in another order, no users, and cities."""
    folder = tmp_path_factory.mktemp("shop")
    patch = pytest.MonkeyPatch()
    without_ray(patch)
    for name, columns, values in (("old", ["site", "user"], 30), ("new", ["site", "city"], 45)):
        (folder / f"{name}.yaml").write_text(SCHEMA.format(vocabulary=", ".join(columns), hash=64))
        source = logs(folder / f"{name}.csv", 1500, columns, values, seed=len(columns) + values)
        prepare(str(folder / f"{name}.yaml"), str(folder / name), inputs=source, split="order:0.8,0.2")
    patch.undo()
    return str(folder / "old"), str(folder / "new")


def config(data: str, **sections) -> RunConfig:
    base = {
        "run": {"name": "t"},
        "data": {"path": data, "streams": 4},
        "model": {"name": "dnn", "tower": {"hidden": [8]}},
        "embedding": {"dim": 32, "lr": 0.05, "init_std": 0.1, "sharding": "row_wise"},
        "train": {"global_batch_size": 64, "precision": "fp32"},
    }
    return parse({name: values | sections.get(name, {}) for name, values in base.items()})


def trained(config: RunConfig, folder: Path) -> dict:
    trainer, batches = make_trainer(config)
    progress = Progress()
    for table in itertools.islice(batches(), 12):
        trainer.step(table, progress)
    store = Checkpoints(Storage(folder / "checkpoints"))
    about = {"config": to_dict(config), "dataset": fingerprint(config.data.path), "progress": progress.as_dict()}
    store.save(progress.step, pieces(trainer.model, trainer.optimizers), about)
    store.wait()
    return whole(trainer)


def whole(trainer) -> dict[str, np.ndarray]:
    """Weights, and what this rank holds of the optimisers' state."""
    state = {p.name: p.tensor.detach().numpy().copy() for p in pieces(trainer.model, trainer.optimizers) if not p.name.endswith("weight")}
    return state | {name.removeprefix("tables.embedding_bags."): value for name, value in weights(trainer.model).items()}


def started(config: RunConfig) -> tuple[dict, dict, str]:
    trainer, _ = make_trainer(config)
    cold = whole(trainer)
    trainer.optimizers.create_state()
    text, _ = warm_start(config, trainer.model, trainer.optimizers, read_manifest(config.data.path))
    return cold, whole(trainer), text


@pytest.mark.parametrize("sharding", ["table_wise", "column_wise", "data_parallel"])
def test_rows_are_matched_by_value_and_the_rest_starts_as_ever(datasets, tmp_path, sharding):
    old, new = datasets
    before = on_ranks(2, trained, config(old), tmp_path / "old")[0]
    each = config(new, run={"warm_start": str(tmp_path / "old")}, embedding={"sharding": sharding})
    cold, warm, text = on_ranks(1, started, each)[0]
    old_ids = {token: i for i, token in enumerate(read_tokens(old, "site").to_pylist(), 1)}
    tokens = read_tokens(new, "site").to_pylist()
    assert [*old_ids] != tokens[: len(old_ids)] and set(tokens) - set(old_ids), "the test needs another order and new values"
    for i, token in enumerate(tokens, 1):
        expected = before["t_site.weight"][old_ids[token]] if token in old_ids else cold["t_site.weight"][i]
        assert np.array_equal(warm["t_site.weight"][i], expected), token
        if token not in old_ids:
            assert not warm["t_site.sum"].reshape(-1)[i]
    assert np.array_equal(warm["t_site.weight"][0], before["t_site.weight"][0])
    assert np.array_equal(warm["t_device.weight"], before["t_device.weight"])
    assert np.array_equal(warm["t_city.weight"], cold["t_city.weight"])
    dense = [name for name in cold if name.startswith("model.")]
    for name in dense:  # as many fields as before: all shapes fit
        assert np.array_equal(warm[name], (cold if name == "model.tower.layers.0.0.weight" else before)[name]), name
    assert not warm["optim.model.tower.layers.0.0.weight.exp_avg"].any() and warm["optim.model.tower.layers.0.0.bias.exp_avg"].any()
    assert "other or moved fields: tower.layers.0.0.weight" in text
    assert "fields that are no more: user" in text and "by value" in text and "new field" in text and "by row number" in text


def test_it_says_how_many_rows_it_takes_initialises_and_leaves_behind(datasets, tmp_path):
    old, new = datasets[::-1]
    on_ranks(1, trained, config(old), tmp_path / "old")
    _, _, text = on_ranks(1, started, config(new, run={"warm_start": str(tmp_path / "old")}))[0]
    had, has = (set(read_tokens(data, "site").to_pylist()) for data in (old, new))
    assert had - has
    line = next(line for line in text.splitlines() if line.split()[1:2] == ["site"])
    assert re.findall(r"(\d+) rows", line) == [str(len(had & has) + 1), str(len(has - had)), str(len(had - has))]


def evaluated_twice(config: RunConfig, folder: Path) -> list[dict]:
    """The weights after each of two steps; the first's evaluation was the better one."""
    trainer, batches = make_trainer(config)
    progress, store, seen = Progress(best_step=1), Checkpoints(Storage(folder / "checkpoints")), []
    for table in itertools.islice(batches(), 2):
        trainer.step(table, progress)
        about = {"config": to_dict(config), "dataset": fingerprint(config.data.path), "progress": progress.as_dict()}
        store.save(progress.step, pieces(trainer.model, trainer.optimizers), about, best=1)
        store.wait()
        seen.append(weights(trainer.model))
    return seen


def test_a_run_gives_the_weights_of_its_best_evaluation_which_it_would_export_too(datasets, tmp_path):
    best, newest = on_ranks(1, evaluated_twice, config(datasets[0]), tmp_path / "old")[0]
    _, warm, text = on_ranks(1, started, config(datasets[0], run={"warm_start": str(tmp_path / "old")}))[0]
    name = "t_site.weight"
    assert "step-000000001" in "".join(text.split()) and np.array_equal(warm[name], best[f"tables.embedding_bags.{name}"])
    assert not np.array_equal(warm[name], newest[f"tables.embedding_bags.{name}"])


def test_a_sequence_takes_the_rows_of_the_field_that_it_is_of_and_has_none_itself(tmp_path):
    for name, films in (("old", 20), ("new", 30)):
        prepared(tmp_path / name, films=films, seed=films, labels="label: {column: rating, at_least: 4}")
    old, new = (str(tmp_path / name / "data") for name in ("old", "new"))
    model = {"name": "din", "attention": {"hidden": [4]}, "tower": {"hidden": [8]}}
    before = on_ranks(1, trained, config(old, model=model), tmp_path / "run")[0]
    _, warm, text = on_ranks(1, started, config(new, model=model, run={"warm_start": str(tmp_path / "run")}))[0]
    ids = {token: row for row, token in enumerate(read_tokens(old, "film").to_pylist(), 1)}
    for row, token in enumerate(read_tokens(new, "film").to_pylist(), 1):
        assert token not in ids or np.array_equal(warm["t_film.weight"][row], before["t_film.weight"][ids[token]])
    dense = [name for name in warm if name.startswith("model.")]
    assert dense and all(np.array_equal(warm[name], before[name]) for name in dense)
    assert "seen" not in text and "10 rows" in text


def test_a_hash_of_another_size_and_another_width_are_not_taken(datasets, tmp_path):
    old, _ = datasets
    on_ranks(1, trained, config(old), tmp_path / "old")
    other = tmp_path / "other"
    patch = pytest.MonkeyPatch()
    without_ray(patch)
    (tmp_path / "s.yaml").write_text(SCHEMA.format(vocabulary="site, user", hash=80))
    source = logs(tmp_path / "s.csv", 500, ["site", "user"], 30, seed=3)
    prepare(str(tmp_path / "s.yaml"), str(other), inputs=source, split="order:0.8,0.2")
    patch.undo()
    cold, warm, text = on_ranks(1, started, config(str(other), run={"warm_start": str(tmp_path / "old")}))[0]
    assert np.array_equal(warm["t_device.weight"], cold["t_device.weight"]) and "its ids mean something else now" in text
    narrow = config(old, run={"warm_start": str(tmp_path / "old")}, embedding={"dim": 16})
    cold, warm, text = on_ranks(1, started, narrow)[0]
    assert np.array_equal(warm["t_site.weight"], cold["t_site.weight"]) and "embedding.dim was 32" in text
    assert "other or new: model" not in text and "tower.layers.0.0.weight" in text


def test_a_parameter_that_is_not_taken_starts_its_optimiser_at_step_0_too(datasets, tmp_path):
    """Adam's state without its count of steps would be corrected for a bias that it has no more, or has still."""
    old, _ = datasets
    on_ranks(1, trained, config(old), tmp_path / "old")
    narrow = config(old, run={"warm_start": str(tmp_path / "old")}, embedding={"dim": 16})
    _, warm, _ = on_ranks(1, started, narrow)[0]
    counts = {name.removesuffix(".step"): value for name, value in warm.items() if name.startswith("optim.") and name.endswith(".step")}
    fresh = "optim.model.tower.layers.0.0.weight"
    assert fresh in counts and len(counts) > 1
    for name, count in counts.items():
        assert count == (0 if name == fresh else 12), name
        assert warm[f"{name}.exp_avg_sq"].any() == (name != fresh), name


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
def test_tables_count_steps_on_from_those_of_their_state_whoever_counts_them(datasets, tmp_path, optimizer):
    """FBGEMM's optimisers count outside of their state, torch's in it. Between CPUs FBGEMM has no Adam."""
    old, new = datasets
    own = {"optimizer": optimizer, "sharding": "data_parallel"}
    made = own if optimizer == "adam" else own | {"sharding": "row_wise"}
    on_ranks(1, trained, config(old, embedding=made), tmp_path / "old")
    each = config(new, run={"warm_start": str(tmp_path / "old")}, embedding=own)
    _, warm, _ = on_ranks(1, started, each)[0]
    assert warm["t_site.step"] == warm["t_device.step"] == 12 and warm["t_city.step"] == 0
    if optimizer == "adagrad":
        for kind, counts in ((made, [12]), (made | {"optimizer": "sgd"}, [0])):
            assert on_ranks(1, counted, config(new, run={"warm_start": str(tmp_path / "old")}, embedding=kind))[0] == counts


def counted(config: RunConfig) -> list[int]:
    """What each of FBGEMM's modules counts after a warm start."""
    trainer, _ = make_trainer(config)
    trainer.optimizers.create_state()
    warm_start(config, trainer.model, trainer.optimizers, read_manifest(config.data.path))
    return [int(module.iter) for module in fused(trainer.model)]


def gone_on_with(config: RunConfig, sharding: str) -> list[int]:
    """What the tables of a warm-started run count at its start, and where it is gone on with after 5 and 10 steps, rolled back then too,
    under another sharding."""
    counts, other = [], replace(config, embedding=replace(config.embedding, sharding=sharding))
    for each in (config, other, other):
        trainer, batches = make_trainer(each)
        keeper = Keeper(each, read_manifest(each.data.path), Place(), trainer.model, trainer.optimizers, [], lambda **_: None)
        progress = keeper.start()
        counts.append(count_of(trainer))
        for table in itertools.islice(batches(), 5):
            trainer.step(table, progress)
        keeper.save(progress)
        keeper.settle()
    keeper.restore()
    return [*counts, count_of(trainer)]


def count_of(trainer: Trainer) -> int:
    """FBGEMM's own count, or that in the state of torch's optimiser."""
    counts = {int(module.iter) for module in fused(trainer.model)}
    counts |= {int(piece.tensor) for piece in pieces(trainer.model, trainer.optimizers) if piece.name == "t_site.step"}
    assert len(counts) == 1
    return counts.pop()


@pytest.mark.parametrize("others", ["row_wise", "data_parallel"])
@pytest.mark.parametrize("sharding", ["row_wise", "data_parallel"])
def test_tables_that_were_started_warm_count_on_from_the_old_steps_where_the_run_is_gone_on_with(datasets, tmp_path, sharding, others):
    """12 steps of the old run; a third that starts from the second's 15 counts both."""
    old, _ = datasets
    tables = {"optimizer": "adagrad", "sharding": sharding}
    on_ranks(1, trained, config(old, embedding=tables), tmp_path / "old")

    def each(name: str, start: str) -> RunConfig:
        run = {"name": name, "storage": str(tmp_path), "warm_start": str(tmp_path / start)}
        return config(old, run=run, embedding=tables)

    assert on_ranks(1, gone_on_with, each("new", "old"), others)[0] == [12, 17, 22, 27]
    assert on_ranks(1, gone_on_with, each("newer", "new"), others)[0] == [27, 32, 37, 42]


def told_steps(config: RunConfig) -> int:
    trainer, _ = make_trainer(config)
    trainer.optimizers.create_state()
    return warm_start(config, trainer.model, trainer.optimizers, read_manifest(config.data.path))[1]


@pytest.mark.parametrize(("optimizer", "steps"), [("adagrad", 12), ("rowwise_adagrad", 0)])
def test_workers_without_a_table_are_told_the_same_steps(datasets, tmp_path, optimizer, steps):
    """There are three tables; another optimiser takes no state, and so no steps."""
    old, new = datasets
    on_ranks(1, trained, config(old, embedding={"optimizer": "adagrad"}), tmp_path / "old")
    tables = {"optimizer": optimizer, "sharding": "table_wise"}
    assert on_ranks(4, told_steps, config(new, run={"warm_start": str(tmp_path / "old")}, embedding=tables)) == [steps] * 4


def refused(config: RunConfig) -> str:
    trainer, _ = make_trainer(config)
    trainer.optimizers.create_state()
    with pytest.raises(InputError) as error:
        warm_start(config, trainer.model, trainer.optimizers, read_manifest(config.data.path))
    return str(error.value)


def test_what_cannot_be_matched_is_refused_with_the_reason(datasets, tmp_path):
    old, new = datasets
    absent = on_ranks(1, refused, config(new, run={"warm_start": str(tmp_path)}))[0]
    assert absent == f"run.warm_start {tmp_path} is neither a checkpoint nor the folder of a run that has one"
    moved = tmp_path / "moved"
    Path(old).rename(moved)
    try:
        on_ranks(1, trained, config(str(moved)), tmp_path / "run")
    finally:
        moved.rename(old)
    gone = on_ranks(1, refused, config(new, run={"warm_start": str(tmp_path / "run")}))[0]
    assert "the checkpoint's dataset is needed to match its rows by value, but" in gone and str(moved) in gone


def test_a_damaged_checkpoint_that_another_run_is_not_started_from_is_told_of(datasets, tmp_path):
    old, new = datasets
    on_ranks(1, trained, config(old), tmp_path / "old")
    sound = tmp_path / "old/checkpoints/step-000000012"
    newer = shutil.copytree(sound, sound.with_name("step-000000013"))
    (newer / "MANIFEST.json").write_text("{")
    each = config(new, run={"warm_start": str(tmp_path / "old")})
    text = on_ranks(1, started, each)[0][2]
    assert text.startswith(f"a damaged checkpoint is passed over: {newer}/MANIFEST.json is unreadable")
    shutil.rmtree(sound)
    said = on_ranks(1, refused, each)[0]
    assert f"no checkpoint of {sound.parent} is sound" in said
    assert said.endswith("; put its files back, or name another run or checkpoint as run.warm_start")


def test_another_runs_checkpoints_are_not_to_be_moved_away_where_they_are_of_another_format(datasets, tmp_path):
    old, new = datasets
    on_ranks(1, trained, config(old), tmp_path / "old")
    checkpoint = tmp_path / "old/checkpoints/step-000000012"
    line = f"{to_another_format(checkpoint)}: take that version, or name another run or checkpoint"
    for start, said in ((tmp_path / "old", f"{line} as run.warm_start"), (checkpoint, f"run.warm_start: checkpoint {line}")):
        each = config(new, run={"warm_start": str(start)})
        assert on_ranks(2, refused, each) == [said, said]


def test_a_checkpoints_folder_may_have_any_name_and_a_damaged_one_is_named_with_the_way_out(datasets, tmp_path):
    old, _ = datasets
    before = on_ranks(1, trained, config(old), tmp_path / "old")[0]
    best = Path(shutil.copytree(next((tmp_path / "old/checkpoints").iterdir()), tmp_path / "models/best"))
    each = config(old, run={"warm_start": str(best)})
    _, warm, text = on_ranks(1, started, each)[0]
    assert np.array_equal(warm["t_site.weight"], before["t_site.weight"]) and "the same dataset" in text
    file = next(best.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    line = f"run.warm_start: checkpoint {file} is damaged (its SHA-256 is not the manifest's); name another, or the folder of its run"
    assert on_ranks(2, refused, each) == [line, line]


class Asked(CheckpointReader):
    """Keeps what it is asked to fill."""

    def __init__(self, *given):
        super().__init__(*given)
        self.pieces = []

    def fill(self, pieces: list[Piece]) -> set[str]:
        self.pieces += pieces
        return super().fill(pieces)


def old_table(folder: Path, rows: int) -> tuple[Asked, torch.Tensor]:
    """A reader of a table of 4 columns, and the table."""
    table = torch.arange(1.0, 1 + 4 * rows).view(rows, 4)
    held = [Piece("t.weight", table, (rows, 4), (0, 0), (rows, 4))]
    Storage(folder).write("c/x.safetensors", lambda: chunks(held))
    return Asked(Storage(folder), "c", index_of(held, "x.safetensors")), table


def test_of_a_table_whose_rows_stay_a_worker_reads_its_own_rows_alone_and_in_place(tmp_path):
    reader, table = old_table(tmp_path, 64)
    for first, taken, expected in ((48, 64, 8), (60, 64, 4), (70, 64, 0), (48, 50, 2)):
        reader.pieces.clear()
        part = torch.zeros(8, 4)
        take_rows(reader, Piece("t.weight", part, (80, 4), (first, 0), (8, 4)), Match(taken, 64, "by row number"))
        assert part[:expected].equal(table[first : first + expected]) and not part[expected:].any()
        assert [(asked.shape, asked.tensor.data_ptr()) for asked in reader.pieces] == [((expected, 4), part.data_ptr())] * bool(expected)


def test_of_a_table_whose_rows_are_elsewhere_a_worker_holds_one_block_at_a_time_and_reads_those_with_a_row_of_its_own(
    tmp_path, monkeypatch
):
    reader, table = old_table(tmp_path, 70)
    block = 16 * 8  # bytes: 16 rows of two columns
    monkeypatch.setattr("sml_dist.train.warm.BLOCK", block)
    rows = np.full(100, -1)
    rows[90:] = [69, -1, 3, 17, 64, 0, 3, 16, -1, 7]
    part = torch.zeros(10, 2)
    take_rows(reader, Piece("t.weight", part, (100, 4), (90, 2), (10, 2)), Match(8, 70, "by value", rows))
    for row, old in enumerate(rows[90:]):
        assert part[row].equal(table[old, 2:] if old >= 0 else torch.zeros(2)), row
    assert [(asked.offset, asked.shape) for asked in reader.pieces] == [((0, 2), (16, 2)), ((16, 2), (16, 2)), ((64, 2), (6, 2))]
    assert max(asked.tensor.nbytes for asked in reader.pieces) <= block
