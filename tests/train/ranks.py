"""Runs a function on several gloo ranks, each a process of its own, and trains without Ray."""

import itertools
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torchrec.distributed.types import ShardedTensor

from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import read_manifest
from sml_dist.data.stream import DirectStream, Source
from sml_dist.embeddings.batch import Collator
from sml_dist.train.build import make_task
from sml_dist.train.loop import Progress, Trainer
from sml_dist.train.optimizers import Optimizers
from sml_dist.train.rows import training_plan
from sml_dist.train.schedule import Schedule
from sml_dist.train.sharded import shard, start_tables

# Ranks are forked from one server that has imported all this once: .3 s for two of them, where importing took each 5 s and more.
mp.set_forkserver_preload([__name__])


def on_ranks(workers: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """function(*args) on ranks 0..workers-1 of a gloo group; their results in order."""
    with tempfile.TemporaryDirectory() as results:
        mp.start_processes(_rank, (workers, function, args, results), nprocs=workers, start_method="forkserver")
        return [pickle.loads((Path(results) / str(rank)).read_bytes()) for rank in range(workers)]


def _rank(rank: int, workers: int, function: Callable[..., Any], args: tuple, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{results}/meet", rank=rank, world_size=workers)
    value = function(*args)
    (Path(results) / str(rank)).write_bytes(pickle.dumps(value))
    dist.barrier()
    dist.destroy_process_group()


def make_trainer(config: RunConfig, nodes: tuple[int, ...] | None = None) -> tuple[Trainer, Any]:
    """A trainer over the current process group, and the batches of its rank from a cursor, read in this process.

    `nodes`: the workers of each node that the ranks stand for, in order; None puts all on one.
    """
    rank, workers = dist.get_rank(), dist.get_world_size()
    manifest, device = read_manifest(config.data.path), torch.device("cpu")
    plan = training_plan(manifest, config)
    local = [size for size in nodes or (workers,) for _ in range(size)][rank]
    model, _ = shard(make_task(manifest, config, device), manifest, config, device, local)
    start_tables(model, config)

    stream = DirectStream(Source.of(config.data.path, manifest, "train"), plan, rank, workers, epochs=100)
    trainer = Trainer(
        config=config.train,
        model=model,
        optimizers=Optimizers(model, config.train, config.embedding),
        schedule=Schedule(config.train, 100),
        collate=Collator(manifest),
        device=device,
        steps_per_epoch=plan.steps,
        evaluate=lambda: {"auc": 0.5},
        log=lambda **values: None,
    )
    return trainer, stream.batches


def weights(model: torch.nn.Module) -> dict[str, Any]:
    """Every weight as a whole NumPy array on rank 0, whatever the sharding; {} elsewhere."""
    whole = {}
    for name, value in model.state_dict().items():
        if isinstance(value, ShardedTensor):
            full = torch.empty(value.size()) if dist.get_rank() == 0 else None
            value.gather(0, out=full)
            value = full
        whole[name] = value.detach().numpy().copy() if value is not None else None
    return whole if dist.get_rank() == 0 else {}


def trained(config: RunConfig, steps: int, nodes: tuple[int, ...] | None = None) -> dict[str, Any]:
    """The weights after some steps."""
    trainer, batches = make_trainer(config, nodes)
    progress = Progress()
    for table, _, exchange in trainer.coming(itertools.islice(batches(), steps)):
        trainer.step(table, progress, exchange)
    return weights(trainer.model)
