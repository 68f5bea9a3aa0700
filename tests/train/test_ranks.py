"""Several gloo ranks do what one does, under every sharding; a resumed run does what an uninterrupted one does."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

from sml_dist.config.run import RunConfig, parse
from sml_dist.data.synthetic import synth
from sml_dist.train import checkpoint
from sml_dist.train.loop import Progress
from tests.train.ranks import make_trainer, on_ranks, trained, weights

SHARDINGS = ["data_parallel", "table_wise", "row_wise", "column_wise", "auto"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("data") / "synth")
    synth(2_000, path, fields=5, dense=3, table_rows=400)
    return path


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


def stopped_and_resumed(config: RunConfig, folder: Path, stop: int, end: int) -> dict:
    """Weights and optimiser state after `end` steps, with a checkpoint, a new model and a load in between at `stop`."""
    store = checkpoint.Checkpoints(folder)
    trainer, batches = make_trainer(config)
    progress = Progress()
    for first, last in ((0, stop), (stop, end)):
        for table in itertools.islice(batches(progress.cursor), last - first):
            trainer.step(table, progress)
            trainer.advance(progress)
        if last < end:
            state = {"model": trainer.model.state_dict(), "optim": trainer.optimizers.state()}
            store.save(progress.step, state, {"progress": progress.as_dict()})
            trainer, batches = make_trainer(config)
            trainer.optimizers.create_state()
            found = store.latest()
            checkpoint.load(found, {"model": trainer.model.state_dict(), "optim": trainer.optimizers.state()})
            progress = Progress(**found.manifest["progress"])
    return weights(trainer.model) | {f"optim.{n}.{k}": local(v) for n, s in trainer.optimizers.state().items() for k, v in s.items()}


def local(value) -> np.ndarray:
    parts = [shard.tensor for shard in value.local_shards()] if hasattr(value, "local_shards") else [value]
    return np.concatenate([np.atleast_1d(part.detach().numpy()).ravel() for part in parts]) if parts else np.empty(0)


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
            if "running_" in name:
                continue  # batch statistics are each rank's own between evaluations
            assert np.array_equal(cut[rank][name], value), name


def committed_steps(folder: Path) -> list[str]:
    """Saves three checkpoints of a tiny state, damages the newest; which one is found?"""
    import torch

    store = checkpoint.Checkpoints(folder, keep=2)
    for step in (1, 2, 3):
        store.save(step, {"w": torch.full((4,), float(step))}, {}, best=1)
    if dist.get_rank() == 0:
        data = next(folder.glob("step-000000003/__0_*"))
        blob = bytearray(data.read_bytes())
        blob[len(blob) // 2] ^= 1
        data.write_bytes(blob)
    dist.barrier()
    found = store.latest()
    state = {"w": torch.zeros(4)}
    checkpoint.load(found, state)
    return [path.name for path in sorted(folder.iterdir())] + [found.path.name, state["w"].tolist()]


def test_a_damaged_checkpoint_is_passed_over_and_the_best_is_kept(tmp_path):
    names = ["step-000000001", "step-000000002", "step-000000003"]
    assert on_ranks(2, committed_steps, tmp_path / "c") == [[*names, "step-000000002", [2.0] * 4]] * 2
