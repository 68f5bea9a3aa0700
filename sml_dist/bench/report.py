"""Results as Markdown and as a plot, and two of them side by side."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from sml_dist.spec import first_fault
from sml_dist.tabular import markdown_table

Result = dict[str, Any]


class Compared(BaseModel, strict=True):
    """What of an earlier case a new one is compared with."""

    case: str
    arms: dict[str, float]
    ratios: dict[str, float]
    ranges: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]]

    @model_validator(mode="after")
    def whole(self) -> "Compared":
        if absent := (self.arms | self.ratios).keys() - self.ranges.keys():
            raise ValueError(f"no range of {', '.join(sorted(absent))}")
        return self


class Earlier(BaseModel):
    cases: Annotated[list[Compared], Field(min_length=1)]


def comparable(old: Any) -> Result:
    """What a bench.json holds, if it can be compared with. Raises ValueError that says in a line why not."""
    try:
        Earlier.model_validate(old)
    except ValidationError as error:
        raise ValueError(first_fault(error)) from None
    return old


def markdown(found: Result, old: Result | None = None) -> str:
    """Every case as a table; with `old`, what moved."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    head = f"{machine['cores']} cores of {machine['processor']}, load {machine['load'][0]}, {machine['time']}; {versions}.\n"
    about = "Medians of readings taken in turn, [least, most]; a ratio is one of readings of the same round.\n"
    earlier = {case["case"]: case for case in old["cases"]} if old else {}
    return "\n".join(["# Benchmark\n", head, about, *(section(case, earlier.get(case["case"])) for case in found["cases"])])


def section(case: Result, old: Result | None) -> str:
    says = f"{case['says'][0].upper()}{case['says'][1:]}; {case['rounds']} rounds, {case['seconds']:g} s."
    rows = []
    for name, value in (case["arms"] | case["ratios"]).items():
        low, high = case["ranges"][name]
        row = {"": name, case["unit"]: shown(value), "range": f"{shown(low)}–{shown(high)}", "bound": verdict(case, name, value)}
        rows.append(row | (moved(old, name, value) if old else {}))
    return f"## {case['case']}\n\n{says}\n\n{markdown_table(rows)}"


def verdict(case: Result, name: str, value: float) -> str:
    """The bound and whether it holds; "" where there is none."""
    if name in case["at_least"]:
        return f"≥ {case['at_least'][name]:g}: {'holds' if value >= case['at_least'][name] else 'missed'}"
    if name in case["at_most"]:
        return f"≤ {case['at_most'][name]:g}: {'holds' if value <= case['at_most'][name] else 'missed'}"
    return ""


def moved(old: Result, name: str, value: float) -> dict[str, str]:
    """What it was and the change; in bold where it lies outside the old range."""
    before = (old["arms"] | old["ratios"]).get(name)
    if not before:
        return {"before": "", "change": ""}
    low, high = old["ranges"][name]
    change = f"{value / before - 1:+.1%}"
    return {"before": shown(before), "change": change if low <= value <= high else f"**{change}**"}


def shown(value: float) -> str:
    """Three significant digits, whole numbers from a thousand on."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def plot(found: Result, path: Path) -> None:
    """Ratios with their ranges, and a mark where the bound is."""
    from matplotlib.figure import Figure

    bars = [(case, name) for case in found["cases"] for name in case["ratios"]]
    if not bars:
        return
    figure = Figure(figsize=(9, 1 + 0.34 * len(bars)), layout="constrained")
    axes = figure.subplots()
    for place, (case, name) in enumerate(reversed(bars)):
        value, (low, high) = case["ratios"][name], case["ranges"][name]
        axes.plot([low, high], [place, place], color="#4c78a8", linewidth=3)
        axes.plot([value], [place], "o", color="#1f3b5c", markersize=7)
        bound = (case["at_least"] | case["at_most"]).get(name)
        if bound is not None:
            axes.plot([bound, bound], [place - 0.4, place + 0.4], color="#e45756", linewidth=2.5)
    axes.set_yticks(range(len(bars)), [f"{case['case']}: {name.replace('_', ' ')}" for case, name in reversed(bars)])
    axes.axvline(1, color="grey", linewidth=1, linestyle=":")
    axes.set_xscale("log")
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks("{x:g}")
    axes.set_xlabel("ratio, on a logarithmic scale: median of the rounds, least to most; red: the bound")
    figure.savefig(path, dpi=120)
