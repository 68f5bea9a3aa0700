"""What a sweep leaves for people: best.yaml, README.md with its tables, pairs.csv."""

from typing import Any

from sml_dist.config.run import dump
from sml_dist.spec import to_dict
from sml_dist.statistics import Paired, paired
from sml_dist.tabular import Row, markdown_table, write_csv
from sml_dist.train.report import RunFolder, finite
from sml_dist.tune.blueprint import Blueprint, value_at
from sml_dist.tune.books import Books, Record

TARGET = 1e-4  # a difference that one wants to be able to see
SHOWN = 50  # trials in the table


def write_results(blueprint: Blueprint, books: Books) -> dict[str, Any]:
    """Writes what can be said of a sweep; returns it."""
    folder, pairs = RunFolder(blueprint.folder), paired_differences(blueprint, books)
    found: dict[str, Any] = {"folder": str(blueprint.folder), "trials": counts(books), "metric": blueprint.sweep.metric}
    if ranked := books.ranked():
        best = ranked[0]
        what = f"Trial {best.id} of the sweep {blueprint.sweep.name}" + (f": {way_to(best)}" if best.exploits else "")
        folder.write("best.yaml", f"# {what}\n{dump(blueprint.best(best.params))}")
        default = default_of(blueprint, books)
        found |= {"best": {"id": best.id, "value": best.value, "params": best.params}, "default": default and default.value}
    if pairs:
        write_csv(blueprint.folder / "pairs.csv", [row for rows, _ in pairs.values() for row in rows])
        found["pairs"] = finite({label: vars(result) for label, (_, result) in pairs.items()})
    folder.write("README.md", page(blueprint, books, pairs))
    return found


def counts(books: Books) -> dict[str, int]:
    statuses = [record.status for record in books.records.values()]
    return {status: statuses.count(status) for status in dict.fromkeys(statuses)}


def default_of(blueprint: Blueprint, books: Books) -> Record | None:
    """The trial whose settings are all the base's own."""
    base = to_dict(blueprint.base)
    return next((each for each in books.ranked() if all(value_at(base, key) == value for key, value in each.params.items())), None)


def page(blueprint: Blueprint, books: Books, pairs: dict[str, tuple[list[Row], Paired]]) -> str:
    sweep, ranked = blueprint.sweep, books.ranked()
    rows = sum(record.rows for record in books.records.values())
    minutes = sum(record.seconds for record in books.records.values()) / 60
    told = ", ".join(f"{number} {status}" for status, number in counts(books).items())
    text = f"# {sweep.name}\n\n{len(books.records)} trials of `{sweep.base}` ({told}); {rows:,} rows, {minutes:.1f} minutes of trials.\n\n"
    if ranked:
        text += verdict(blueprint, ranked[0], default_of(blueprint, books)) + "\n"
        text += "".join(f"\n{difference(sweep.metric, label, result)}\n" for label, (_, result) in pairs.items())
        lines = [line(each, blueprint) for each in ranked[:SHOWN]]
        text += f"\nBest first, by {sweep.metric} on the validation rows:\n\n{markdown_table(lines)}\n"
    failed = [record for record in books.records.values() if record.error]
    return text + "".join(f"- trial {record.id} failed: {record.error}\n" for record in failed)


def verdict(blueprint: Blueprint, best: Record, default: Record | None) -> str:
    sweep = blueprint.sweep
    text = f"Best: trial {best.id} with {sweep.metric} {best.value:.5f}: {way_to(best)}."
    if default is None:
        return text
    if best is default:
        return f"{text} It is the default, the base itself: no trial was better."
    early = "" if default.status == "finished" else f", {default.status} after {default.rows / blueprint.epoch_rows:.3g} epochs"
    return (
        f"{text} The default (trial {default.id}{early}) has {default.value:.5f}: "
        f"a difference of {best.value - default.value:+.5f}, of the best of many."
    )


def way_to(best: Record) -> str:
    """How one has what a trial came to."""
    if best.exploits:
        return f"its settings changed as it went, so its checkpoint in {best.run} is the result; `best.yaml` has the last ones alone"
    return "`best.yaml` trains it"


def line(record: Record, blueprint: Blueprint) -> Row:
    found = {"trial": record.id, blueprint.sweep.metric: f"{record.value:.5f}", "status": record.status}
    found |= {"epochs": round(record.rows / blueprint.epoch_rows, 2), "seconds": round(record.seconds, 1)}
    return found | {short(key, [*found, *blueprint.sweep.space]): record.params.get(key) for key in blueprint.sweep.space}


def short(key: str, columns: list[str]) -> str:
    """A key's shortest end that is no end of another column's name."""
    parts, others = key.split("."), [f".{column}" for column in columns if column != key]
    ends = (".".join(parts[n:]) for n in reversed(range(len(parts))))
    return next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)


def paired_differences(blueprint: Blueprint, books: Books) -> dict[str, tuple[list[Row], Paired]]:
    """For each value of `pair` but the control: a row for each draw both of whose trials finished, and what they say."""
    pair, found = blueprint.sweep.pair, {}
    if not pair:
        return found
    values = blueprint.space.extremes(pair)
    control = blueprint.sweep.control(values, value_at(to_dict(blueprint.base), pair))
    finished = {(each.pair, str(each.params.get(pair))): each for each in books.records.values() if each.status == "finished"}
    draws = sorted({draw for draw, _ in finished})
    for other in (value for value in values if value != control):
        both = [(draw, finished.get((draw, str(other))), finished.get((draw, str(control)))) for draw in draws]
        rows = [
            {"draw": draw, pair: other, "trial": a.id, "against": b.id, "value": a.value, "of": b.value, "difference": a.value - b.value}
            for draw, a, b in both
            if a and b
        ]
        if rows:
            found[f"{pair} {other} minus {control}"] = rows, paired([row["difference"] for row in rows], TARGET)
    return found


def difference(metric: str, label: str, result: Paired) -> str:
    return (
        f"{label}: {metric} {result.mean:+.5f}, 95 % interval [{result.t_low:+.5f}, {result.t_high:+.5f}] (Student's t, "
        f"{result.seeds} draws of the rest; higher in {result.wins}; p {result.p:.3f})."
    )
