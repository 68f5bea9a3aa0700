"""A task sharded over the process group: planned, placed, and started at weights that no plan and no number of workers changes."""

import hashlib
import os

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import Topology
from torchrec.distributed.types import ShardedTensor, ShardingPlan

from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.data.dataset import Manifest
from sml_dist.embeddings import rowwise_adagrad
from sml_dist.embeddings.optim import check_l2, fused_params
from sml_dist.embeddings.sharding import Sharder, links, make_plan, placements
from sml_dist.train.task import CTRTask

BLOCK_ROWS = 65_536


def shard(
    task: CTRTask, manifest: Manifest, config: EmbeddingConfig, device: torch.device, local_world_size: int, seed: int
) -> tuple[DistributedModelParallel, ShardingPlan]:
    """The task under DMP: tables as the planner placed them, the model in DDP where there are several workers."""
    if device.type == "cpu" and config.optimizer == "rowwise_adagrad":
        rowwise_adagrad.take_over()
    sharder = Sharder(fused_params=fused_params(config))
    topology = Topology(dist.get_world_size(), device.type, local_world_size=node_size(local_world_size), **links(device.type))
    plan = make_plan(task, manifest, config, sharder, topology, dist.group.WORLD)
    check_l2(config, [p.table for p in placements(plan, manifest, config.dim) if p.kind != "data_parallel"], device.type)
    several = dist.get_world_size() > 1
    model = DistributedModelParallel(task, device=device, plan=plan, sharders=[sharder], init_data_parallel=several)
    start_tables(model, config.init_std, seed)
    return model, plan


def node_size(local_workers: int) -> int:
    """Workers of every node, where all have as many; else 1, so that no rows are split within a node. TorchRec is told the same.

    Left to itself each rank would make the groups within nodes by its own node's count, and hang where the counts differ.
    """
    counts = [0] * dist.get_world_size()
    dist.all_gather_object(counts, local_workers)
    size = local_workers if set(counts) == {local_workers} and len(counts) % local_workers == 0 else 1
    os.environ["LOCAL_WORLD_SIZE"] = str(size)
    return size


@torch.no_grad()
def start_tables(model: DistributedModelParallel, std: float, seed: int) -> None:
    """Fills every table with normal(0, std) drawn by (seed, table, block of rows), whichever rank holds which part."""
    for name, value in model.state_dict().items():
        if ".embedding_bags." not in name:
            continue
        if isinstance(value, ShardedTensor):
            for part in value.local_shards():
                _fill(part.tensor, part.metadata.shard_offsets, value.size()[1], std, _key(name, seed))
        else:
            _fill(value, [0, 0], value.shape[1], std, _key(name, seed))


def _fill(part: Tensor, offset: list[int], dim: int, std: float, key: int) -> None:
    first, last = offset[0], offset[0] + part.shape[0]
    for block in range(first // BLOCK_ROWS, -(-last // BLOCK_ROWS)):
        start, stop = max(block * BLOCK_ROWS, first), min((block + 1) * BLOCK_ROWS, last)
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([key, block])))
        rows = random.standard_normal((stop - block * BLOCK_ROWS, dim), dtype=np.float32)[start - block * BLOCK_ROWS :]
        part[start - first : stop - first] = torch.from_numpy(rows[:, offset[1] : offset[1] + part.shape[1]] * np.float32(std))


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
