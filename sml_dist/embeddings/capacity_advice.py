"""What to change where a plan does not fit: each change is planned too, so that it comes with its figures; least harm first."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sml_dist.config.embedding import TableConfig
from sml_dist.config.run import RunConfig
from sml_dist.embeddings.capacity import UNCOPIED, Capacity, attempt, demand, solve, uncopied_plan
from sml_dist.embeddings.capacity_sizes import show_bytes
from sml_dist.embeddings.capacity_tables import Tables
from sml_dist.embeddings.cluster import RESERVE, Cluster


@dataclass(frozen=True)
class Change:
    """`settings` as --set and options take them, those of the first change among them; `line` says them in short with their price.

    `found` is the plan under it; where it does not fit, one for ranks with more memory.
    """

    settings: list[str]
    line: str
    found: Capacity

    @property
    def fits(self) -> bool:
        return self.found.fits


def advise(run: RunConfig, tables: Tables, cluster: Cluster, needed: Capacity) -> list[Change]:
    """The changes that apply. Later ones include row_wise tables, which change no result."""
    return list(changes(run, tables, cluster, needed))


def changes(run: RunConfig, tables: Tables, cluster: Cluster, needed: Capacity) -> Iterator[Change]:
    base: list[str] = []
    also = ""

    def change(settings: list[str], line: str, changed: RunConfig, cluster: Cluster = cluster, found: Capacity | None = None) -> Change:
        found = found or attempt(changed, tables, cluster) or demand(changed, tables, cluster)[0]
        return Change([*base, *settings], line + also, found)

    if uncopied := uncopied_plan(run, tables, cluster):
        line = f"{UNCOPIED} (no change to the results; training waits while a checkpoint is written, which needs no copy then)"
        yield change([UNCOPIED], line, run, found=uncopied)
    if names := too_large(needed):
        config = replace(run.embedding, tables=run.embedding.tables | {name: TableConfig(sharding="row_wise") for name in names})
        run = replace(run, embedding=config)
        settings = [f"embedding.tables.{name}.sharding=row_wise" for name in names]
        yield change(settings, f"row_wise for {listed(names)} (no change to the results; all ranks exchange their lookups)", run)
        base, also = settings, f", with {2 if uncopied else 1}."
    if small := smaller_dim(run, tables, cluster):
        dim = small.embedding.dim
        yield change([f"embedding.dim={dim}"], f"embedding.dim={dim} instead of {run.embedding.dim} (a smaller model)", small)
    if run.embedding.optimizer in ("adam", "adagrad"):
        light = replace(run, embedding=replace(run.embedding, optimizer="rowwise_adagrad"))
        line = f"embedding.optimizer=rowwise_adagrad instead of {run.embedding.optimizer} (tune embedding.lr again)"
        yield change(["embedding.optimizer=rowwise_adagrad"], line, light)
    if cluster.device == "cuda" and (found := solve(run, tables, replace(cluster, ddr=10**18))):
        used = found.fullest_host * cluster.local_world_size
        richer = replace(cluster, ddr=math.ceil(used / (1 - RESERVE) / 1e9) * 10**9)
        found = replace(found, host_room=richer.host_room)
        option = f"--ddr {richer.ddr // 10**9}GB"
        yield change([option], f"{option} (rows outside the cache in HBM come from host memory over the bus)", run, richer, found)
    if larger := more_ranks(run, tables, cluster):
        wider, divided, found = larger
        batch, streams, option = divided.train.global_batch_size, divided.data.streams, f"--world-size {wider.world_size}"
        own = [f"train.global_batch_size={batch}"] if batch != run.train.global_batch_size else []
        own += [f"data.streams={streams}"] if streams != run.data.streams else []
        yield change([*own, option], f"{option}{' with ' if own else ''}{' and '.join(own)} (more machines)", divided, wider, found)


def too_large(needed: Capacity) -> list[str]:
    """Tables that row_wise would help: those with a shard above a rank's room; else, if the mean rank has room for its part, the largest
    ones without whose largest shards the fullest rank would fit."""
    cut = [table for table in needed.tables if table.kind != "row_wise"]
    times = 2 if any(rank.main.copies for rank in needed.ranks) else 1  # a shard and its copy
    if names := [table.table for table in cut if times * table.largest_shard > needed.room]:
        return names
    left = needed.fullest
    if sum(rank.main.total for rank in needed.ranks) > needed.room * len(needed.ranks):
        return []
    for table in sorted(cut, key=lambda t: -t.largest_shard):
        if left <= needed.room:
            break
        left -= times * table.largest_shard
        names.append(table.table)
    return names


def smaller_dim(run: RunConfig, tables: Tables, cluster: Cluster) -> RunConfig | None:
    """The run with its dim halved until there is a plan, or as often as can be."""
    small = None
    while (dim := (small or run).embedding.dim) % 2 == 0 and dim > 4:
        small = replace(run, embedding=replace(run.embedding, dim=dim // 2))
        if attempt(small, tables, cluster):
            break
    return small


def more_ranks(run: RunConfig, tables: Tables, cluster: Cluster) -> tuple[Cluster, RunConfig, Capacity] | None:
    """The first number of nodes, a quarter more at each try, on which there is a plan; None up to 64 times as many.

    The run's batch is rounded up to one that the ranks can share, and it gets a stream for each where its own are too few or do not
    divide that.
    """
    count = cluster.world_size // cluster.local_world_size
    most = 64 * count
    while (count := max(count + 1, count * 5 // 4)) <= most:
        wider = replace(cluster, world_size=count * cluster.local_world_size)
        ranks, streams = wider.world_size, run.data.streams
        batch = -(-run.train.global_batch_size // ranks) * ranks
        streams = streams if streams >= ranks and batch % streams == 0 else ranks
        divided = replace(run, data=replace(run.data, streams=streams), train=replace(run.train, global_batch_size=batch))
        if found := attempt(divided, tables, wider):
            return wider, divided, found
    return None


def listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def explain(change: Change) -> str:
    if not change.fits:
        return f"{change.line}: does not fit; a plan for larger ranks takes {taken(change.found)}"
    return f"{change.line}: fits with {filled(change.found)}, {change.found.step_ms:.1f} ms a step"


def filled(plan: Capacity) -> str:
    """What the fullest rank takes of what it has."""
    host = f" and {show_bytes(plan.fullest_host)} of {show_bytes(plan.host_room)} of host memory" if plan.fullest_host else ""
    return f"{show_bytes(plan.fullest)} of {show_bytes(plan.room)} on the fullest rank{host}"


def taken(plan: Capacity) -> str:
    return show_bytes(plan.fullest) + (f" and {show_bytes(plan.fullest_host)} of host memory" if plan.fullest_host else "")
