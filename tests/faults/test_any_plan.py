"""A checkpoint made under any sharding on any number of workers loads under any other on any other number.

Equal weights give equal predictions (tests/train/test_ranks.py), so weights are compared: to the bit when loaded, and to
1e-5 after training went on, which the optimiser's state decides.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest

from sml_dist.config.run import RunConfig
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.loop import Progress
from sml_dist.train.resume import load
from sml_dist.train.state import pieces
from sml_dist.train.storage import Storage
from tests.data.histories import prepared
from tests.train.ranks import make_trainer, on_ranks, weights
from tests.train.test_ranks import config

pytestmark = pytest.mark.faults
KINDS = ("table_wise", "row_wise", "column_wise", "data_parallel")
STEPS = 6  # before the checkpoint, and again after it was loaded


@pytest.fixture(scope="module")
def dataset(synthetic) -> str:
    return synthetic(2_000, fields=3, dense=3, table_rows=301)


def steps(trainer, batches, progress: Progress, count: int) -> None:
    for table in itertools.islice(batches(progress.cursor), count):
        trainer.step(table, progress)


def saved(configs: list[RunConfig], folder: Path) -> list:
    """For each config a checkpoint after STEPS steps; its predictions, and the weights after STEPS more."""
    found = []
    for each in configs:
        trainer, batches = make_trainer(each)
        progress = Progress()
        steps(trainer, batches, progress, STEPS)
        store = Checkpoints(Storage(folder / each.run.name))
        store.save(STEPS, pieces(trainer.model, trainer.optimizers), {"progress": progress.as_dict()})
        store.wait()
        held = weights(trainer.model)
        steps(trainer, batches, progress, STEPS)
        found.append((held, weights(trainer.model)))
    return found


def opened(configs: list[RunConfig], folder: Path, makers: list[str]) -> list:
    """For each config and each checkpoint: the weights loaded, those after STEPS more steps, and what was inexact."""
    found = []
    for each, maker in itertools.product(configs, makers):
        trainer, batches = make_trainer(each)
        store = Checkpoints(Storage(folder / maker))
        inexact = load(store.at(STEPS), trainer.model, trainer.optimizers)
        held, progress = weights(trainer.model), Progress(step=STEPS, batch=STEPS)
        steps(trainer, batches, progress, STEPS)
        found.append((held, weights(trainer.model), inexact))
    return found


def named(dataset: str, kind: str, optimizer: str, workers: int) -> RunConfig:
    each = config(dataset, embedding={"sharding": kind, "optimizer": optimizer, "dim": 32}, train={"num_workers": workers})
    return RunConfig(**(vars(each) | {"run": type(each.run)(name=f"{optimizer}-{kind}-{workers}")}))


def check(dataset: str, folder: Path, optimizers: list[str], sizes: list[int], chosen: tuple[str, ...] = KINDS) -> int:
    """Every pair; how many."""
    kinds = {o: chosen if o != "adam" else ("data_parallel",) for o in optimizers}
    wanted = {}
    for workers in sizes:
        configs = [named(dataset, kind, o, workers) for o in optimizers for kind in kinds[o]]
        for each, result in zip(configs, on_ranks(workers, saved, configs, folder)[0], strict=True):
            wanted[each.run.name] = result
    pairs = 0
    for workers, optimizer in itertools.product(sizes, optimizers):
        configs = [named(dataset, kind, optimizer, workers) for kind in kinds[optimizer]]
        makers = [name for name in wanted if name.startswith(optimizer + "-")]
        found = on_ranks(workers, opened, configs, folder, makers)[0]
        for (each, maker), (held, trained, inexact) in zip(itertools.product(configs, makers), found, strict=True):
            pairs += 1
            for name, value in wanted[maker][0].items():
                assert np.array_equal(held[name], value), f"{maker} in {each.run.name}: {name}"
            columns = optimizer == "rowwise_adagrad" and "column_wise" in (each.embedding.sharding, maker.split("-")[1])
            cut = columns and each.embedding.sharding == "column_wise" and "column_wise" not in maker  # whole rows into column shards
            assert bool(inexact) == cut, f"{maker} in {each.run.name}: {inexact}"
            for name, value in wanted[maker][1].items():
                # a row of rowwise Adagrad in column shards trains otherwise by nature: it differs from here on, but not by much
                near = 0.05 if columns else 1e-5
                np.testing.assert_allclose(trained[name], value, atol=near, err_msg=f"{maker} in {each.run.name}: {name}")
    return pairs


def test_three_plans_on_one_and_two_workers(dataset, tmp_path):
    assert check(dataset, tmp_path, ["rowwise_adagrad"], [1, 2], ("row_wise", "column_wise", "data_parallel")) == 36


def test_a_table_that_a_sequence_shares_moves_between_plans_like_any_other(tmp_path):
    prepared(tmp_path, films=80, labels="label: {column: rating, at_least: 4}")
    assert check(str(tmp_path / "data"), tmp_path, ["rowwise_adagrad"], [2], ("table_wise", "row_wise", "column_wise")) == 9


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_plan_size_and_optimiser(dataset, tmp_path):
    pairs = check(dataset, tmp_path, ["sgd", "adagrad", "rowwise_adagrad", "adam"], [1, 2, 4])
    print(pairs, "pairs")
    assert pairs == 3 * 144 + 9
