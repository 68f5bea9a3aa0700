"""Several gloo ranks do what one does, under every sharding; a resumed run does what an uninterrupted one does."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F

from sml_dist.config.run import RunConfig, parse
from sml_dist.embeddings import rowwise_adagrad
from sml_dist.embeddings.capacity import solve
from sml_dist.embeddings.capacity_tables import dataset_tables
from sml_dist.embeddings.cluster import Cluster, links
from sml_dist.nn.native import library
from sml_dist.train import loop
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.finite import Diverged
from sml_dist.train.loop import Progress
from sml_dist.train.resume import load
from sml_dist.train.sharded import average_batch_statistics
from sml_dist.train.state import fused, pieces
from sml_dist.train.storage import Storage
from tests.train.ranks import make_trainer, on_ranks, trained

SHARDINGS = ["data_parallel", "table_wise", "row_wise", "column_wise", "auto"]


@pytest.fixture(scope="module")
def dataset(synthetic) -> str:
    return synthetic(2_000, fields=5, dense=3, table_rows=400)


def config(dataset: str, **sections) -> RunConfig:
    base = {
        "run": {"name": "t"},
        "data": {"path": dataset, "streams": 4},
        "model": {"name": "dcn_v2", "cross_layers": 2, "tower": {"hidden": [16, 8]}},
        "embedding": {"dim": 8, "lr": 0.05, "init_std": 0.1, "data_parallel_rows": 50},
        "train": {"global_batch_size": 64, "precision": "fp32", "epochs": 5},
    }
    base["model"] = sections.pop("model", base["model"])
    return parse({name: base[name] | sections.get(name, {}) for name in base})


def trained_under(configs: list[RunConfig], steps: int) -> list[dict]:
    return [trained(each, steps) for each in configs]


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "sgd", "adagrad"])
def test_two_and_four_ranks_equal_one_under_every_sharding(dataset, optimizer):
    # column shards of rowwise Adagrad keep a row state each, so they differ by nature
    kinds = [kind for kind in SHARDINGS if not (kind == "column_wise" and optimizer == "rowwise_adagrad")]
    configs = [config(dataset, embedding={"sharding": kind, "optimizer": optimizer}) for kind in kinds]
    one = on_ranks(1, trained_under, configs[:1], 5)[0][0]
    start = on_ranks(1, trained_under, configs[:1], 0)[0][0]
    for workers in (1, 2, 4) if optimizer == "rowwise_adagrad" else (2,):
        for kind, found in zip(kinds, on_ranks(workers, trained_under, configs, 5)[0], strict=True):
            assert found.keys() == one.keys()
            for name, value in one.items():
                np.testing.assert_allclose(found[name], value, atol=2e-6, err_msg=f"{name} under {kind} on {workers} ranks")
                assert name.endswith("offset") or not np.array_equal(value, start[name]), f"{name} did not train"


@pytest.mark.skipif(library(rowwise_adagrad.SOURCE) is None, reason="no C++ compiler: FBGEMM's own kernel has no weight decay on a CPU")
def test_l2_decays_a_looked_up_row_of_a_sharded_table_as_of_a_copied_one(dataset):
    """A row that was not looked up decays in a copied table alone; one step of the whole first batch."""
    kinds = ["table_wise", "row_wise", "data_parallel"]
    decayed = [config(dataset, embedding={"sharding": kind, "l2": 0.5}) for kind in kinds]
    sharded, cut, copied = on_ranks(2, trained_under, decayed, 1)[0]
    start, plain = on_ranks(1, trained_under, [config(dataset)], 0)[0][0], on_ranks(1, trained_under, [config(dataset)], 1)[0][0]
    for name in (name for name in start if ".embedding_bags." in name):
        seen = (plain[name] != start[name]).any(axis=1)
        assert seen.any() and not np.allclose(sharded[name][seen], plain[name][seen], atol=1e-4)
        for found in (sharded, cut):
            np.testing.assert_allclose(found[name][seen], copied[name][seen], atol=2e-6)
            np.testing.assert_array_equal(found[name][~seen], start[name][~seen])


def stopped_and_resumed(config: RunConfig, folder: Path, stop: int, end: int) -> dict:
    """Weights and optimiser state after `end` steps, with a checkpoint, a new model and a load in between at `stop`."""
    store = Checkpoints(Storage(folder))
    trainer, batches = make_trainer(config)
    progress = Progress()
    for first, last in ((0, stop), (stop, end)):
        for table in itertools.islice(batches(progress.cursor), last - first):
            trainer.step(table, progress)
        if last < end:
            average_batch_statistics(trainer.model)
            store.save(progress.step, pieces(trainer.model, trainer.optimizers), {"progress": progress.as_dict()})
            store.wait()
            trainer, batches = make_trainer(config)
            found = store.latest()
            load(found, trainer.model, trainer.optimizers)
            progress = Progress(**found.manifest["progress"])
    return {f"{p.name}@{p.offset}": p.tensor.detach().numpy().copy() for p in pieces(trainer.model, trainer.optimizers)}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_resumed_run_ends_with_the_bytes_of_an_uninterrupted_one(dataset, tmp_path, workers):
    # 25 steps an epoch: the stop lies in the second epoch; dropout draws must repeat too
    model = {"name": "dnn", "tower": {"hidden": [16, 8], "norm": "batch", "dropout": 0.3}}
    each = config(dataset, model=model, embedding={"sharding": "auto"})
    whole = on_ranks(workers, stopped_and_resumed, each, tmp_path / "whole", 40, 40)
    cut = on_ranks(workers, stopped_and_resumed, each, tmp_path / "cut", 30, 40)
    for rank in range(workers):
        assert whole[rank].keys() == cut[rank].keys()
        for name, value in whole[rank].items():
            if "running_" in name and workers > 1:
                continue  # each rank's own between commits, where their mean is taken; this one had a commit more
            assert np.array_equal(cut[rank][name], value), name


def saved_both_ways(config: RunConfig, folder: Path) -> list[tuple]:
    """The bytes of this rank's file, the manifest's index and what was copied, in the background and while training waits."""
    trainer, batches = make_trainer(config)
    for table in itertools.islice(batches(), 3):
        trainer.step(table, Progress())
    found = []
    for background in (True, False):
        store = Checkpoints(Storage(folder / str(background)), background=background)
        store.save(3, pieces(trainer.model, trainer.optimizers), {})
        if background:
            store.wait()
        [file] = folder.glob(f"{background}/step-000000003/rank-{dist.get_rank():05d}.safetensors")
        copied = sum(copy.nbytes for copy in store.copies.values())
        found.append((file.read_bytes(), store.at(3).manifest["tensors"], copied))
    with torch.no_grad():
        next(piece.tensor for piece in pieces(trainer.model, trainer.optimizers) if not piece.replicated).fill_(float("nan"))
    with pytest.raises(Diverged):
        store.save(4, pieces(trainer.model, trainer.optimizers), {})
    return found


def test_a_checkpoint_has_the_same_bytes_without_copies_and_with_them_as_many_as_the_plan_counts(dataset, tmp_path):
    each = config(dataset, embedding={"sharding": "row_wise", "optimizer": "adagrad", "tables": {"C1": {"sharding": "data_parallel"}}})
    plan = solve(each, dataset_tables(dataset), Cluster(2, 2, "cpu", 0, 10**10, **links("cpu"))).ranks
    for rank, (background, waiting) in enumerate(on_ranks(2, saved_both_ways, each, tmp_path)):
        assert background[:2] == waiting[:2] and len(background[0]) > background[2] > waiting[2] == 0
        assert background[2] == pytest.approx(plan[rank].main.copies, abs=1000)  # the optimisers count steps


def steps_counted(config: RunConfig, folder: Path) -> list[list[int]]:
    """By FBGEMM, in a new model that loads the checkpoint of step 3 and in one that has gone on to step 5 and goes back to it."""
    store, found = Checkpoints(Storage(folder)), []
    for made, earlier in enumerate((0, 5)):
        trainer, _ = make_trainer(config)
        if not made:
            trainer.optimizers.create_state()
            store.save(3, pieces(trainer.model, trainer.optimizers), {})
            store.wait()
        for module in fused(trainer.model):
            module.iter.fill_(earlier)  # a CPU's do not count
            module.iter_cpu.fill_(earlier)
        load(store.at(3), trainer.model, trainer.optimizers)
        found += [[int(module.iter), int(module.iter_cpu)] for module in fused(trainer.model)]
    return found


def test_fused_optimisers_count_on_from_the_step_of_the_checkpoint(dataset, tmp_path):
    """Adam's bias correction goes by it, on a GPU."""
    each = config(dataset, embedding={"sharding": "row_wise", "optimizer": "adagrad"})
    assert on_ranks(1, steps_counted, each, tmp_path)[0] == [[3, 3], [3, 3]]


def reported_and_true_loss(config: RunConfig, bad: int) -> tuple[float, float, int]:
    """The training loss as this rank logs it, and the sum over its rows and their number, without those of step `bad`, whose loss is NaN on
    the last rank."""
    trainer, batches = make_trainer(config)
    loss, progress, logged, sums = trainer.loss, Progress(), [], []

    def heard(logit, batch):
        spoilt = progress.step == bad
        if not spoilt:
            rows = F.binary_cross_entropy_with_logits(logit.detach(), batch.label, reduction="none")[batch.weight > 0]
            sums.append((float(rows.sum()), len(rows)))
        return loss(logit, batch) * (float("nan") if spoilt and dist.get_rank() == dist.get_world_size() - 1 else 1)

    trainer.loss, trainer.log = heard, lambda **values: logged.append(values)
    loop.LOG_SECONDS = 1e9
    trainer.run(batches, progress)
    (line,) = [line for line in logged if "loss" in line]
    return line["loss"], sum(total for total, _ in sums), sum(rows for _, rows in sums)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_training_loss_is_the_mean_over_all_workers_rows_whatever_their_shares_padding_and_skipped_steps(dataset, workers):
    # 16 streams are 6, 5 and 5; the last of 6 batches holds 100 rows or fewer
    each = config(dataset, data={"streams": 16}, train={"global_batch_size": 304, "epochs": 1})
    for bad in (None, 2):
        found, totals, rows = zip(*on_ranks(workers, reported_and_true_loss, each, bad), strict=True)
        assert found == pytest.approx([sum(totals) / sum(rows)] * workers, rel=1e-5)
