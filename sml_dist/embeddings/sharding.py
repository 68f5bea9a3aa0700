"""Where each table lives: the planner, and its plan as a table one can read."""

import logging
import math
from dataclasses import dataclass

from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError, ShardingOption
from torchrec.distributed.types import ParameterSharding, ShardingPlan, ShardingType

from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.data.dataset import Manifest, by_table
from sml_dist.embeddings.capacity_tables import Tables
from sml_dist.embeddings.cluster import Cluster
from sml_dist.embeddings.optim import DENSE, fused_params, states
from sml_dist.embeddings.tables import embedding_tables, users
from sml_dist.quiet import quiet
from sml_dist.spec import InputError
from sml_dist.tabular import as_text, rich_table

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


class CopyingEnumerator(EmbeddingEnumerator):
    """TorchRec's, which counts the copies of checkpoints in host memory too."""

    optimizer: str

    def populate_estimates(self, sharding_options: list[ShardingOption]) -> None:
        super().populate_estimates(sharding_options)
        for option in sharding_options:
            for shard, size in zip(option.shards, copied_bytes(option, self.optimizer), strict=True):
                shard.storage.ddr += size


def copied_bytes(option: ShardingOption, optimizer: str) -> list[int]:
    """What a checkpoint that is written in the background copies of each shard and its state; of what all ranks hold alike, the first's."""
    alike = option.sharding_type == ShardingType.DATA_PARALLEL.value
    return [0 if alike and i else 4 * (math.prod(s.size) + states(*s.size, optimizer)) for i, s in enumerate(option.shards)]


def allowed_kinds(manifest: Manifest, config: EmbeddingConfig, device: str, workers: int) -> dict[str, list[str]]:
    """Sharding kinds that the planner may choose from, by the field that a table is of.

    One worker saves no exchange by copying tables, and is 5 % faster with all of them in one fused kernel; but under l2 a copied table
    decays differently, and Adam needs it. Cutting tables gains it nothing and costs 5 % too. Between CPUs all tables are spread, and whole
    where they are no larger than a worker's share of all: each further kind is a further exchange a step, and a copied table is updated in
    all its rows (two workers, Criteo's shape: 5 to 9 %).
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


def make_plan(
    config: EmbeddingConfig, tables: Tables, cluster: Cluster, global_batch: int, fixed: float, copied: float | None = None
) -> tuple[dict[str, ParameterSharding], list[ShardingOption]] | None:
    """TorchRec's best plan over the kinds that the configuration allows, by table, and its options; None where nothing fits.

    `fixed` bytes of each rank's memory are not the tables'. Unless `copied` is None, checkpoints are written from copies in host memory,
    of the tables and on the first rank of so many bytes besides; a GPU's plan without host memory (`ddr` 0) leaves them out, since there
    would be none. The planner alone would take every machine for one of 32 GB HBM and 128 GiB for each rank, and forget the tables'
    optimiser: a parameter must say which it has.
    """
    left, cuda = int(cluster.room - fixed), cluster.device == "cuda"
    if left <= 0:
        return None
    kinds = allowed_kinds(tables.manifest, config, cluster.device, cluster.world_size)
    constraints = {
        name: ParameterConstraints(
            sharding_types=kinds[field.name],
            min_partition=min(config.dim, LEAST_COLUMNS),
            pooling_factors=[tables.ids_per_row[user] for user in users(field, tables.manifest)],
        )
        for name, field in by_table(tables.manifest).items()
    }
    module = embedding_tables(tables.manifest, config)  # not those that train, whose optimiser would be taken from the mark
    for parameter in module.parameters():
        parameter._optimizer_classes = [DENSE[config.optimizer]]
    found: list[ShardingOption] = []
    with quiet(logging.ERROR):  # TorchRec warns of how its topology was made, and logs each proposal that does not fit
        topology = Topology(
            world_size=cluster.world_size,
            local_world_size=cluster.local_world_size,
            compute_device=cluster.device,
            hbm_cap=left if cuda else 0,
            ddr_cap=int(cluster.host_room) if cuda else left,
            ssd_cap=0,
            intra_host_bw=cluster.intra_bw / 1000,
            inter_host_bw=cluster.inter_bw / 1000,
            hbm_mem_bw=cluster.hbm_bw / 1000,
        )
        options = {"topology": topology, "constraints": constraints, "batch_size": math.ceil(global_batch / cluster.world_size)}
        enumerator = None
        if copied is not None and cluster.ddr:
            enumerator = CopyingEnumerator(**options)
            enumerator.optimizer = config.optimizer
            topology.devices[0].storage.ddr -= int(copied)
        planner = EmbeddingShardingPlanner(
            **options,
            enumerator=enumerator,
            storage_reservation=FixedPercentageStorageReservation(0.0),  # what is not the tables' is taken off above
            stats=[],
            callbacks=[lambda options: found.extend(options) or options],
        )
        try:
            plan = planner.plan(module, [Sharder(fused_params=fused_params(config))])
        except PlannerError:
            return None
    return plan.plan[""], found


@dataclass(frozen=True)
class Placed:
    """One table's line of a plan; `table` is the name of its field, `weights` their bytes over all ranks, each once."""

    table: str
    rows: int
    dim: int
    kind: str
    kernel: str
    ranks: tuple[int, ...]
    weights: int


def placements(plan: ShardingPlan, manifest: Manifest, dim: int) -> list[Placed]:
    """The plan table by table, the largest first."""
    fields = by_table(manifest)
    placed = [
        Placed(field.name, field.rows, dim, p.sharding_type, p.compute_kernel, tuple(sorted(set(p.ranks))), 4 * field.rows * dim)
        for module in plan.plan.values()
        for field, p in ((fields[table], p) for table, p in module.items())
    ]
    return sorted(placed, key=lambda p: (-p.rows, p.table))


def plan_text(placed: list[Placed]) -> str:
    """The plan as a table for the terminal and for plan.txt."""
    table = rich_table("Sharding plan", ("table", "rows", "dim", "sharding", "kernel", "ranks", "MB"), "lrrlllr")
    for p in placed:
        table.add_row(p.table, f"{p.rows:,}", str(p.dim), p.kind, p.kernel, ",".join(map(str, p.ranks)), f"{p.weights / 1e6:.1f}")
    return as_text(table, width=120)
