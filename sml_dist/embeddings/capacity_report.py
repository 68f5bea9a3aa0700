"""`sml-dist plan`: from a configuration and a cluster on paper to a plan, whether it fits, and what to change if not."""

from dataclasses import asdict, dataclass
from typing import Any

from sml_dist.config.run import RunConfig, load
from sml_dist.data.dataset import read_manifest
from sml_dist.data.plan import Plan
from sml_dist.embeddings.capacity import Capacity, Memory, demand, solve
from sml_dist.embeddings.capacity_advice import Change, advise, explain
from sml_dist.embeddings.capacity_sizes import parse_bytes
from sml_dist.embeddings.capacity_tables import Tables, dataset_tables, read_tables
from sml_dist.embeddings.cluster import RESERVE, Cluster, links
from sml_dist.spec import InputError


@dataclass(frozen=True)
class Report:
    """`plan` is for the cluster if it `fits`; else for ranks of `needs` bytes, the least memory that has a plan."""

    name: str
    cluster: Cluster
    global_batch: int
    plan: Capacity
    fits: bool
    needs: int
    changes: list[Change]


def make_cluster(*, world_size: int, local_world_size: int, device: str, **sizes: str | None) -> Cluster:
    """The cluster of options, sizes as they are typed: hbm, ddr, intra_bw, inter_bw, hbm_bw; None for a link as they mostly are."""
    parsed = {name: parse_bytes(text, "--" + name.replace("_", "-")) for name, text in sizes.items() if text is not None}
    return Cluster(world_size=world_size, local_world_size=local_world_size, device=device, **links(device) | parsed)


def plan_run(config: str, overrides: list[str] | None, cluster: Cluster, tables_file: str | None = None) -> Report:
    """Plans the run of a configuration file for a cluster: tables from `tables_file`, or from the dataset that the run reads."""
    run = load(config, overrides)
    if run.train.global_batch_size % cluster.world_size:
        raise InputError(
            f"train.global_batch_size {run.train.global_batch_size} is not divisible by --world-size {cluster.world_size}; "
            f"try {-(-run.train.global_batch_size // cluster.world_size) * cluster.world_size}"
        )
    data = run.data
    Plan((1,), data.streams, run.train.global_batch_size, window=1, seed=0).share(0, cluster.world_size)  # refused as by training
    tables = read_tables(tables_file) if tables_file else dataset_tables(data.path, read_manifest(data.path, data.label))
    return report(run, tables, cluster)


def report(run: RunConfig, tables: Tables, cluster: Cluster) -> Report:
    found = solve(run, tables, cluster)
    if found and found.fits:
        return Report(run.run.name, cluster, run.train.global_batch_size, found, True, cluster.memory, [])
    needed, memory = demand(run, tables, cluster)
    return Report(run.run.name, cluster, run.train.global_batch_size, needed, False, memory, advise(run, tables, cluster, needed))


def imbalance(values: list[float]) -> float:
    """Largest over mean; 1 is even."""
    return max(values) * len(values) / sum(values) if sum(values) else 1.0


def as_dict(made: Report) -> dict[str, Any]:
    """The report as plain data; bytes, milliseconds."""
    ranks = made.plan.ranks
    return {
        "name": made.name,
        "fits": made.fits,
        "cluster": asdict(made.cluster),
        "global_batch_size": made.global_batch,
        "tables": [asdict(table) for table in made.plan.tables],
        "ranks": [
            {"rank": i, "memory": memory(rank.main), "host": memory(rank.host), "time_ms": asdict(rank.time) | {"total": rank.time.total}}
            for i, rank in enumerate(ranks)
        ],
        "room_bytes": made.plan.room,
        "host_room_bytes": made.plan.host_room,
        "reserve": RESERVE,
        "imbalance": {
            "memory": imbalance([rank.main.total for rank in ranks]),
            "time": imbalance([rank.time.total for rank in ranks]),
        },
        "step_ms": made.plan.step_ms,
        "needs_bytes_per_rank": made.needs,
        "changes": [{"settings": c.settings, "fits": c.fits, "line": explain(c)} for c in made.changes],
    }


def memory(part: Memory) -> dict[str, float]:
    return asdict(part) | {"total": part.total}
