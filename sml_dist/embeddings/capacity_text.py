"""A capacity report as text for the terminal, and for the files beside configs/plans/."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from sml_dist.embeddings.capacity import HOST_KERNELS, RESERVE, Memory, Rank
from sml_dist.embeddings.capacity_advice import explain, filled, taken
from sml_dist.embeddings.capacity_report import Report, imbalance
from sml_dist.embeddings.capacity_sizes import show_bytes
from sml_dist.tabular import as_text, rich_table

STYLE = {"box": box.SIMPLE_HEAD, "pad_edge": False}
SHOWN = 16  # ranks; of more, the fullest, the slowest and the emptiest


def report_text(made: Report) -> str:
    text = as_text(headline(made), tables_table(made), memory_table(made), time_table(made), *summary(made), width=140)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def headline(made: Report) -> str:
    c = made.cluster
    each = f"{show_bytes(c.hbm)} HBM at {show_bytes(c.hbm_bw)}/s, " if c.device == "cuda" else ""
    return (
        f"{made.name} on {c.world_size} ranks ({c.device}), {c.local_world_size} a node: {each}{show_bytes(c.ddr)} a node, "
        f"{show_bytes(c.intra_bw)}/s within it, {show_bytes(c.inter_bw)}/s between nodes; global batch {made.global_batch:,}\n"
    )


def tables_table(made: Report) -> Table:
    names = ("table", "sharding", "kernel", "ranks", "rows", "dim", "MB", "state MB", "largest shard MB")
    table = rich_table("Sharding plan", names, "llllr", **STYLE)
    for t in made.plan.tables:
        numbers = (f"{t.rows:,}", str(t.dim), *(f"{size / 1e6:,.1f}" for size in (t.weights, t.optimizer, t.largest_shard)))
        table.add_row(t.table, t.kind, t.kernel, ranges(t.ranks), *numbers)
    return table


def memory_table(made: Report) -> Table:
    cuda, plan = made.cluster.device == "cuda", made.plan
    main = ["weights", "optimizer", "lookups", "ids", "dense", *([] if cuda else ["copies"]), "total"]
    far = ["copies", "total"] if cuda else []
    where = f"{'HBM' if cuda else 'Host memory'} by rank, GB, of {plan.room / 1e9:.1f}"
    title = f"{where}; host memory, of {plan.host_room / 1e9:.1f}" if cuda else where
    table = rich_table(title, ["rank", *main, *(f"host {name}" for name in far)], "lr", **STYLE)

    def add(label: str, near: Memory, host: Memory, count: int = 1) -> None:
        values = [*(getattr(near, name) for name in main), *(getattr(host, name) for name in far)]
        table.add_row(label, *(f"{value / count / 1e9:.2f}" for value in values))

    for label, rank in chosen(plan.ranks):
        add(label, rank.main, rank.host)
    whole = [sum(parts, Memory()) for parts in ((rank.main for rank in plan.ranks), (rank.host for rank in plan.ranks))]
    add("mean", *whole, len(plan.ranks))
    return table


def time_table(made: Report) -> Table:
    parts = ("fwd_compute", "fwd_comms", "bwd_compute", "bwd_comms", "total")
    names = ("rank", *(name.replace("_", " ") for name in parts))
    table = rich_table("The planner's time by rank, ms, of the tables", names, "lr", **STYLE)
    for label, rank in chosen(made.plan.ranks):
        table.add_row(label, *(f"{getattr(rank.time, name):.2f}" for name in parts))
    return table


def summary(made: Report) -> list[str]:
    ranks = made.plan.ranks
    lines = [
        f"tables {show_bytes(sum(t.weights for t in made.plan.tables))}, their optimiser's state "
        f"{show_bytes(sum(t.optimizer for t in made.plan.tables))}, each row once",
        f"imbalance, max / mean over ranks: memory {imbalance([r.main.total for r in ranks]):.2f}, "
        f"time {imbalance([r.time.total for r in ranks]):.2f}",
        f"step, slowest rank: {made.plan.step_ms:.2f} ms for the tables (the model's own products are not estimated)",
    ]
    if far := [t for t in made.plan.tables if t.kernel in HOST_KERNELS]:
        size = show_bytes(sum(t.weights + t.optimizer for t in far))
        lines.append(f"in host memory: {len(far)} tables, {size}: {', '.join(t.table for t in far)}")
    host = f" and {show_bytes(made.plan.host_room)} of host memory" if made.plan.host_room else ""
    if made.fits:
        return [*lines, f"FITS: {filled(made.plan)}; {RESERVE:.0%} more are kept free"]
    return [
        *lines,
        f"DOES NOT FIT: a rank has {show_bytes(made.plan.room)}{host} ({RESERVE:.0%} are kept free); the plan above is for ranks of "
        f"{show_bytes(made.needs)}, of which the fullest uses {taken(made.plan)}. What to change, least harm first:",
        *(f"  {i}. {explain(change)}" for i, change in enumerate(made.changes, 1)),
    ]


def chosen(ranks: Sequence[Rank]) -> list[tuple[str, Rank]]:
    if len(ranks) <= SHOWN:
        return [(str(i), rank) for i, rank in enumerate(ranks)]
    order = range(len(ranks))
    picked = {
        "fullest": max(order, key=lambda i: ranks[i].main.total),
        "slowest": max(order, key=lambda i: ranks[i].time.total),
        "emptiest": min(order, key=lambda i: ranks[i].main.total),
    }
    return [(f"{i} ({', '.join(n for n in picked if picked[n] == i)})", ranks[i]) for i in dict.fromkeys(picked.values())]


def ranges(ranks: Sequence[int]) -> str:
    """0,1,2,5 as 0-2,5; the first eight of many runs."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    return ",".join(texts) if len(texts) <= 8 else f"{','.join(texts[:8])},... ({len(ranks)})"
