"""A task sharded over the process group: planned, placed, and started at weights that no plan and no number of workers changes."""

import hashlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ray._common.utils import get_system_memory  # what a container may use
from torch import Tensor
from torch.distributed import _remote_device  # which TorchRec's plans are made of
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ShardedTensor, ShardingPlan

from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import Manifest
from sml_dist.embeddings import rowwise_adagrad
from sml_dist.embeddings.capacity import fixed_memory, refusal
from sml_dist.embeddings.capacity_tables import dataset_tables
from sml_dist.embeddings.cluster import Cluster, links
from sml_dist.embeddings.optim import check_l2, fused_params
from sml_dist.embeddings.sharding import Placed, Sharder, make_plan, placements
from sml_dist.spec import InputError
from sml_dist.train.check import Undrawn
from sml_dist.train.checkpoints import agree
from sml_dist.train.task import CTRTask

BLOCK_ROWS = 65_536


def shard(
    task: CTRTask, manifest: Manifest, config: RunConfig, device: torch.device, local_workers: int
) -> tuple[DistributedModelParallel, list[Placed]]:
    """The task under DMP: tables as the planner placed them, the model in DDP where there are several workers; and where its tables lie.

    The tables mean nothing until `start_tables` draws them or a checkpoint is loaded.
    """
    device = torch.empty(0, device=device).device  # with its index, as the tensors have it: shards must be placed on "cuda:0", not "cuda"
    embedding = config.embedding
    if device.type == "cpu" and embedding.optimizer == "rowwise_adagrad":
        rowwise_adagrad.take_over()
    sharder = Sharder(fused_params=fused_params(embedding))
    cluster, devices = cluster_here(device, local_workers)
    plan = common_plan(task, manifest, config, cluster)
    place(plan, devices)
    placed = placements(plan, manifest, embedding.dim)
    check_l2(embedding, [p.table for p in placed if p.kind != "data_parallel"], device.type)
    several = dist.get_world_size() > 1
    with Undrawn():  # TorchRec would draw the tables too, with no beat
        model = DistributedModelParallel(task, device=device, plan=plan, sharders=[sharder], init_data_parallel=several)
    return model, placed


def common_plan(task: CTRTask, manifest: Manifest, config: RunConfig, cluster: Cluster) -> ShardingPlan:
    """Rank 0's plan, on every rank. Raises InputError, on every rank, where nothing fits."""
    made: Any = None
    if dist.get_rank() == 0:
        try:
            tables = dataset_tables(config.data.path, manifest)
            fixed, copied = fixed_memory(config, tables, cluster.world_size, cluster.device, task.model)
            found = make_plan(config.embedding, tables, cluster, config.train.global_batch_size, fixed.total, copied)
            made = found[0] if found else InputError(refusal(config, tables, cluster))
        except InputError as error:
            made = error
    made = agree(made)
    if isinstance(made, InputError):
        raise made
    return ShardingPlan({"tables": made})


def place(plan: ShardingPlan, devices: list[torch.device]) -> None:
    """Puts each rank's shards on its own device: on uneven nodes the planner takes that of every rank for its node's first."""
    for parameter in plan.plan["tables"].values():
        for shard in parameter.sharding_spec.shards if parameter.sharding_spec else []:
            rank = shard.placement.rank()
            shard.placement = _remote_device(f"rank:{rank}/{devices[rank]}")


def cluster_here(device: torch.device, local_workers: int) -> tuple[Cluster, list[torch.device]]:
    """The workers of the process group, each taken to have as much memory as the one that has least, and the device of each; the same
    on every rank. Raises InputError, on every rank, where some have a GPU and others none.

    Where nodes have different numbers of workers, each worker counts as a node, so that no rows are split within one. TorchRec is told
    the same: left to itself each rank would make the groups within nodes by its own node's count, and hang where the counts differ.
    """
    workers = dist.get_world_size()
    gpu = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    mine = (device, local_workers, gpu, int(get_system_memory()) // local_workers)
    found = [mine] * workers
    dist.all_gather_object(found, mine)
    devices, counts, hbm, shares = zip(*found, strict=True)
    if len({each.type for each in devices}) > 1:
        without = [rank for rank, each in enumerate(devices) if each.type == "cpu"]
        way_out = "run `make KIND=gpu setup` on every node, or set train.device=cpu"
        raise InputError(f"train.device: torch can use a GPU on some workers, and not on {without}; {way_out}")
    size = local_workers if set(counts) == {local_workers} and workers % local_workers == 0 else 1
    os.environ["LOCAL_WORLD_SIZE"] = str(size)
    return Cluster(workers, size, device.type, min(hbm), min(shares) * size, **links(device.type)), list(devices)


@torch.no_grad()
def start_tables(model: DistributedModelParallel, config: RunConfig, beat: Callable[[], None] = lambda: None) -> None:
    """Fills every table with normal(0, init_std) drawn by (seed, table, block of rows), whichever rank holds which part.

    It beats at each block: a thread draws .4 GB/s, a tenth of that for narrow column shards, of which it draws the whole rows.
    """
    std, seed = config.embedding.init_std, config.train.seed
    for name, value in model.state_dict().items():
        if ".embedding_bags." not in name:
            continue
        if isinstance(value, ShardedTensor):
            for part in value.local_shards():
                _fill(part.tensor, part.metadata.shard_offsets, value.size()[1], std, _key(name, seed), beat)
        else:
            _fill(value, [0, 0], value.shape[1], std, _key(name, seed), beat)


def _fill(part: Tensor, offset: list[int], dim: int, std: float, key: int, beat: Callable[[], None]) -> None:
    first, last = offset[0], offset[0] + part.shape[0]
    for block in range(first // BLOCK_ROWS, -(-last // BLOCK_ROWS)):
        start, stop = max(block * BLOCK_ROWS, first), min((block + 1) * BLOCK_ROWS, last)
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([key, block])))
        rows = random.standard_normal((stop - block * BLOCK_ROWS, dim), dtype=np.float32)[start - block * BLOCK_ROWS :]
        part[start - first : stop - first] = torch.from_numpy(rows[:, offset[1] : offset[1] + part.shape[1]] * np.float32(std))
        beat()


def _key(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")


def average_batch_statistics(model: torch.nn.Module) -> None:
    """Batch norm's running statistics become their mean over the workers: DMP's DDP leaves each worker its own."""
    if dist.get_world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()
