"""What a run would need on a cluster that need not exist: TorchRec's planner over its shape, and the memory and time of each rank.

A rank's memory is, in HBM or, on CPU, in host memory,

    tables    weights, 4 rows dim, or the share of them that a UVM cache keeps in HBM, and their optimiser's state;
    lookups   ids in and pooled rows out of each shard, for the ids of all ranks' batches, as the planner counts them;
    ids       batches in flight: 20 copies of 8 bytes an id, the planner's rule of thumb for a pipeline of two;
    dense     the model's parameters, gradients (DDP's buckets are views of them) and optimiser state, and the gradients of
              data_parallel tables;
    copies    weights and states again, in host memory whatever the device: what a checkpoint is written from while training goes
              on, and none with `train.checkpoint_in_background=false`. Of what all ranks hold alike the first one has the copy.

RESERVE of each memory stays free. Surprising: the planner counts one state for a row cut into column shards under rowwise Adagrad,
where each shard has its own; that is put right here. A training run makes its plan by the same function (`make_plan`), for the memory
that it finds and the links that are the command's defaults.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import nn
from torchrec.distributed.planner.constants import UVM_CACHING_RATIO
from torchrec.distributed.planner.types import Perf, Shard, ShardingOption

from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import by_table
from sml_dist.embeddings.capacity_sizes import show_bytes
from sml_dist.embeddings.capacity_tables import Tables
from sml_dist.embeddings.cluster import RESERVE, Cluster
from sml_dist.embeddings.optim import check_l2, states
from sml_dist.embeddings.shape import field_shape
from sml_dist.embeddings.sharding import Placed, allowed_kinds, copied_bytes, make_plan
from sml_dist.models.zoo import build
from sml_dist.spec import InputError

ID_COPIES = 20
STATES = {"sgd": 0, "adagrad": 1, "adam": 2, "adamw": 2}  # numbers of optimiser state for each number of a dense parameter
UNCOPIED = "train.checkpoint_in_background=false"
HOST_KERNELS = ("fused_uvm", "fused_uvm_caching")


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank in one memory."""

    weights: float = 0
    optimizer: float = 0
    lookups: float = 0
    ids: float = 0
    dense: float = 0
    copies: float = 0

    @property
    def total(self) -> float:
        return sum(getattr(self, name) for name in self.__dataclass_fields__)

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Rank:
    """`main` is HBM, or host memory where the device is the CPU; `host` what a GPU's rank has in host memory. Times in ms."""

    main: Memory
    host: Memory
    time: Perf


@dataclass(frozen=True)
class TablePlan(Placed):
    """A line with the bytes of the optimiser's state, too, and of the largest shard with its state."""

    optimizer: int
    largest_shard: int


@dataclass(frozen=True)
class Capacity:
    """A plan with what each rank has under it; `room` is the main memory less the reserve, `host_room` a rank's share of the host's."""

    tables: list[TablePlan]
    ranks: list[Rank]
    room: float
    host_room: float

    @property
    def fits(self) -> bool:
        return all(rank.main.total <= self.room and rank.host.total <= self.host_room for rank in self.ranks)

    @property
    def fullest(self) -> float:
        return max(rank.main.total for rank in self.ranks)

    @property
    def fullest_host(self) -> float:
        return max(rank.host.total for rank in self.ranks)

    @property
    def step_ms(self) -> float:
        return max(rank.time.total for rank in self.ranks)


def solve(run: RunConfig, tables: Tables, cluster: Cluster) -> Capacity | None:
    """The planner's best plan for a run on a cluster; None where it finds none."""
    config, (fixed, copied) = run.embedding, fixed_memory(run, tables, cluster.world_size, cluster.device)
    made = make_plan(config, tables, cluster, run.train.global_batch_size, fixed.total, copied)
    if made is None:
        return None
    fields = by_table(tables.manifest)
    found = sorted(made[1], key=lambda option: list(fields).index(option.name))
    placed = [table_plan(option, fields[option.name].name, config) for option in found]
    check_l2(config, [table.table for table in placed if table.kind != "data_parallel"], cluster.device)
    ranks = weigh(found, config, cluster, fixed, copied)
    return Capacity(sorted(placed, key=lambda table: -table.weights), ranks, cluster.room, cluster.host_room)


def refusal(run: RunConfig, tables: Tables, cluster: Cluster) -> str:
    """One line on tables for which a cluster that is there has no room."""
    found, host = demand(run, tables, cluster)[0], show_bytes(cluster.ddr / cluster.local_world_size)
    needed = show_bytes(found.fullest) + (f" and {show_bytes(found.fullest_host)} of its node's memory" if found.fullest_host else "")
    has, hbm = f"{host} of its node's memory", ""
    if cluster.device == "cuda":
        has, hbm = f"{show_bytes(cluster.hbm)} of GPU memory and {has}", f" --hbm {show_bytes(cluster.hbm).replace(' ', '')}"
    machines = f"--world-size {cluster.world_size} --local-world-size {cluster.local_world_size}"
    sizes = f"{hbm} --ddr {show_bytes(cluster.ddr).replace(' ', '')}"
    uncopied = uncopied_plan(run, tables, cluster)
    way_out = f"set {UNCOPIED}, or train on" if uncopied else "train on"
    return (
        f"embedding: the tables do not fit: a worker has {has}, {RESERVE:.0%} of which stays free, and the fullest would need "
        f"{needed}; {way_out} more or larger nodes or lower embedding.dim; "
        f"sml-dist plan CONFIG --device {cluster.device} {machines}{sizes} lists what helps"
    )


def uncopied_plan(run: RunConfig, tables: Tables, cluster: Cluster) -> Capacity | None:
    """The plan of a run that copies for its checkpoints, without the copies, where it fits."""
    if not run.train.checkpoint_in_background:
        return None
    return attempt(replace(run, train=replace(run.train, checkpoint_in_background=False)), tables, cluster)


def attempt(run: RunConfig, tables: Tables, cluster: Cluster) -> Capacity | None:
    """The plan that fits; not searched for where the sum of the tables shows that there is none."""
    main, host = least(run, tables, cluster.world_size, cluster.device)
    if host > cluster.host_room or main + host > cluster.room + cluster.host_room:
        return None
    found = solve(run, tables, cluster)
    return found if found and found.fits else None


def fixed_memory(
    run: RunConfig, tables: Tables, world_size: int, device: str, model: nn.Module | None = None
) -> tuple[Memory, float | None]:
    """What every rank has whatever the plan, and what the first one copies of it for a checkpoint: None where there are no copies.
    `model` is the run's, where it is there already."""
    manifest, config = tables.manifest, run.embedding
    if model is None:
        with torch.device("meta"):
            model = build(run.model, field_shape(manifest, config.dim))
    numbers = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() for b in model.buffers())
    kinds = allowed_kinds(manifest, config, device, world_size)
    replicated = sum(field.rows * config.dim for field in manifest.tables if kinds[field.name] == ["data_parallel"])
    kept = 4 * (numbers * (1 + STATES[run.train.optimizer]) + buffers)
    dense = kept + 4 * (numbers + replicated)
    batch = math.ceil(run.train.global_batch_size / world_size)
    fixed = Memory(ids=ID_COPIES * 8 * batch * sum(tables.ids_per_row.values()), dense=dense)
    return fixed, kept if run.train.checkpoint_in_background else None


def weigh(options: list[ShardingOption], config: EmbeddingConfig, cluster: Cluster, fixed: Memory, copied: float | None) -> list[Rank]:
    """The planner's shards added up by rank."""
    main, host = [fixed] * cluster.world_size, [Memory()] * cluster.world_size
    time = [Perf(0.0, 0.0, 0.0, 0.0)] * cluster.world_size
    copies = host if cluster.device == "cuda" else main
    copies[0] += Memory(copies=copied or 0)
    for option in options:
        sizes = [0] * len(option.shards) if copied is None else copied_bytes(option, config.optimizer)
        for shard, size in zip(option.shards, sizes, strict=True):
            near, far = shard_memory(shard, option.compute_kernel, config, cluster.device, size)
            main[shard.rank] += near
            host[shard.rank] += far
            copies[shard.rank] += Memory(copies=size)
            time[shard.rank] += shard.perf
    return [Rank(*parts) for parts in zip(main, host, time, strict=True)]


def shard_memory(shard: Shard, kernel: str, config: EmbeddingConfig, device: str, copied: int) -> tuple[Memory, Memory]:
    """(main, host) of one shard without its copy. What the planner counts beyond that, weights and its own idea of the state is lookups
    (and a cache's index)."""
    rows, dim = shard.size
    weights, state = 4 * rows * dim, 4 * states(rows, dim, config.optimizer)
    counted = weights * {"rowwise_adagrad": 1 / config.dim, "sgd": 0, "adagrad": 1, "adam": 2}[config.optimizer]
    share = {"fused_uvm": 0.0, "fused_uvm_caching": UVM_CACHING_RATIO}.get(kernel, 1.0)
    total = shard.storage.hbm if device == "cuda" else shard.storage.ddr - copied
    near = Memory(share * weights, share * state, max(total - share * (weights + counted), 0.0))
    return near, Memory(weights, state) if kernel in HOST_KERNELS else Memory()


def table_plan(option: ShardingOption, name: str, config: EmbeddingConfig) -> TablePlan:
    rows, dim = option.tensor.shape
    copies = option.shards[:1] if option.sharding_type == "data_parallel" else option.shards
    sizes = [(4 * math.prod(shard.size), 4 * states(*shard.size, config.optimizer)) for shard in copies]
    return TablePlan(
        name,
        rows,
        dim,
        option.sharding_type,
        option.compute_kernel,
        tuple(sorted({shard.rank for shard in option.shards if math.prod(shard.size)})),
        sum(weights for weights, _ in sizes),
        sum(state for _, state in sizes),
        max(weights + state for weights, state in sizes),
    )


def demand(run: RunConfig, tables: Tables, cluster: Cluster) -> tuple[Capacity, int]:
    """The plan at the least main memory per rank, found by doubling, that has one; and that memory. A GPU's tables all go into its own."""
    cuda = cluster.device == "cuda"
    bound, _ = least(run, tables, cluster.world_size, cluster.device)
    for times in (2**doublings for doublings in range(0 if cuda else 1, 41)):
        wanted = replace(cluster, hbm=times * cluster.hbm, ddr=0) if cuda else replace(cluster, ddr=times * cluster.ddr)
        if bound > wanted.room:  # a search that must fail costs seconds
            continue
        if found := solve(run, tables, wanted):
            return replace(found, room=cluster.room, host_room=cluster.host_room), wanted.memory
    raise InputError("embedding.sharding: there is no plan at any memory; see the sharding of the largest tables")


def least(run: RunConfig, tables: Tables, world_size: int, device: str) -> tuple[float, float]:
    """Lower bounds on the main memory of the fullest rank with no table in host memory, and on a GPU's copies there: all tables spread
    evenly, lookups free."""
    config, manifest = run.embedding, tables.manifest
    fixed, copied = fixed_memory(run, tables, world_size, device)
    kinds = allowed_kinds(manifest, config, device, world_size)

    def size(rows: int) -> int:
        return 4 * (rows * config.dim + states(rows, config.dim, config.optimizer))

    whole = [size(field.rows) for field in manifest.tables if kinds[field.name] == ["data_parallel"]]
    spread = [size(field.rows) for field in manifest.tables if kinds[field.name] != ["data_parallel"]]
    one = [size(field.rows) for field in manifest.tables if kinds[field.name] == ["table_wise"]]
    shards = max(sum(spread) / world_size, max(one, default=0))
    copies = 0 if copied is None else shards
    main = fixed.total + sum(whole) + shards
    return (main, copies) if device == "cuda" else (main + copies, 0)
