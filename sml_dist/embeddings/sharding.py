"""Where each table lives: the planner, and its plan as a table one can read."""

import io
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import nn
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.constants import POOLING_FACTOR
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError
from torchrec.distributed.types import ShardingPlan, ShardingType

from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.data.dataset import Manifest
from sml_dist.embeddings.tables import table_name, users
from sml_dist.spec import InputError

GLOO = 10**9  # bytes a second that a pair of workers exchanges
ROWS_COPIED = 10_000
LEAST_COLUMNS = 16  # of a column shard
SPREAD = [kind.value for kind in (ShardingType.TABLE_WISE, ShardingType.ROW_WISE, ShardingType.COLUMN_WISE)]


class Sharder(EmbeddingBagCollectionSharder):
    """TorchRec's sharder, with the row-wise kinds that it hides on CPU though they work there (FBGEMM 1.8, gloo)."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return [*SPREAD, ShardingType.TABLE_ROW_WISE.value, ShardingType.DATA_PARALLEL.value]

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        if compute_device_type == "cuda":
            return super().compute_kernels(sharding_type, compute_device_type)[:3]
        whole = sharding_type == ShardingType.DATA_PARALLEL.value
        return [(EmbeddingComputeKernel.DENSE if whole else EmbeddingComputeKernel.FUSED).value]


def allowed_kinds(manifest: Manifest, config: EmbeddingConfig, device: str, workers: int) -> dict[str, list[str]]:
    """Sharding kinds that the planner may choose from, by the field that a table is of.

    One worker has nobody to spare a lookup of a copied table, and is 5 % faster with all tables in one fused kernel; but
    under l2 a copied table decays otherwise, and Adam wants it. Nor has it anybody to cut tables for, which costs 5 % too.
    Between CPUs all tables are spread, and whole where they are no larger than a worker's share of all: each further kind is a
    further exchange a step, and a copied table is updated in all its rows (two workers, Criteo's shape: 5 to 9 %).
    """
    wanted = config.l2 > 0 or config.optimizer == "adam"
    kinds, copied = {}, wanted or (workers > 1 and (device == "cuda" or config.data_parallel_rows is not None))
    most = ROWS_COPIED if config.data_parallel_rows is None else config.data_parallel_rows
    share = sum(field.rows for field in manifest.tables) / workers if device == "cpu" or workers == 1 else 0
    cuts = [kind for kind in SPREAD if config.dim >= 2 * LEAST_COLUMNS or kind != ShardingType.COLUMN_WISE.value]
    for field in manifest.tables:
        asked = config.tables[field.name].sharding if field.name in config.tables else config.sharding
        if asked != "auto":
            kinds[field.name] = [asked]
        elif copied and field.rows <= most:
            kinds[field.name] = ["data_parallel"]
        else:
            kinds[field.name] = [ShardingType.TABLE_WISE.value] if field.rows <= share else cuts
        if config.optimizer == "adam" and device == "cpu" and kinds[field.name] != ["data_parallel"]:
            raise InputError(
                f"embedding.optimizer adam runs on CPU for data_parallel tables only, and {field.name} ({field.rows:,} rows) is "
                f"{' or '.join(kinds[field.name])}; set embedding.sharding=data_parallel or embedding.optimizer=rowwise_adagrad"
            )
    return kinds


def links(device: str) -> dict[str, float]:
    """What the planner is told of the workers' connections, in bytes a millisecond. Left to itself it takes a CPU's for NVLink."""
    return {"intra_host_bw": GLOO / 1000, "inter_host_bw": GLOO / 1000} if device == "cpu" else {}


def make_planner(
    manifest: Manifest, config: EmbeddingConfig, topology: Topology, ids_per_row: dict[str, float] | None = None, **options: Any
) -> EmbeddingShardingPlanner:
    """TorchRec's planner over the kinds that the configuration allows; `ids_per_row` by feature, 1 for those it does not name."""
    lengths, kinds = ids_per_row or {}, allowed_kinds(manifest, config, topology.compute_device, topology.world_size)
    constraints = {
        table_name(field.name): ParameterConstraints(
            sharding_types=kinds[field.name],
            min_partition=min(config.dim, LEAST_COLUMNS),
            pooling_factors=[lengths.get(name, POOLING_FACTOR) for name in users(field, manifest)],
        )
        for field in manifest.tables
    }
    return EmbeddingShardingPlanner(topology=topology, constraints=constraints, **options)


def make_plan(
    module: nn.Module,
    manifest: Manifest,
    config: EmbeddingConfig,
    sharder: Sharder,
    topology: Topology,
    group: dist.ProcessGroup | None = None,
) -> ShardingPlan:
    """The planner's choice; over a process `group` rank 0 plans and every rank gets the same plan."""
    planner = make_planner(manifest, config, topology)
    try:
        return planner.collective_plan(module, [sharder], group) if group else planner.plan(module, [sharder])
    except PlannerError as error:
        raise InputError(f"embedding.sharding: no plan fits ({' '.join(str(error).split())[:300]}); use row_wise or fewer rows") from None


@dataclass(frozen=True)
class Placed:
    """One table's line of a plan."""

    table: str
    rows: int
    dim: int
    kind: str
    kernel: str
    ranks: tuple[int, ...]
    megabytes: float


def placements(plan: ShardingPlan, manifest: Manifest, dim: int) -> list[Placed]:
    """The plan table by table, the largest first; memory in MB of float32 weights over all ranks."""
    rows = {table_name(field.name): field.rows for field in manifest.tables}
    placed = [
        Placed(table, rows[table], dim, p.sharding_type, p.compute_kernel, tuple(sorted(set(p.ranks))), rows[table] * dim * 4 / 1e6)
        for module in plan.plan.values()
        for table, p in module.items()
    ]
    return sorted(placed, key=lambda p: (-p.rows, p.table))


def render_plan(placed: list[Placed]) -> Table:
    """The plan as a table for the terminal and for plan.txt."""
    table = Table(title="Sharding plan", title_justify="left")
    for name in ("table", "rows", "dim", "sharding", "kernel", "ranks", "MB"):
        table.add_column(name, justify="right" if name in ("rows", "dim", "MB") else "left")
    for p in placed:
        table.add_row(p.table[2:], f"{p.rows:,}", str(p.dim), p.kind, p.kernel, ",".join(map(str, p.ranks)), f"{p.megabytes:.1f}")
    return table


def plan_text(placed: list[Placed]) -> str:
    console = Console(file=io.StringIO(), width=120, markup=False)
    console.print(render_plan(placed))
    return console.file.getvalue()
