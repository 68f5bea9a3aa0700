"""Lines of metrics.jsonl: which are numbers over steps, and under which names sinks and pages know them."""

from typing import Any

PLACE = {"time", "step", "epoch", "batch", "rows_seen", "epochs", "total_steps", "event", "split"}  # where a line stands, not what it says


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """A line's numbers as SECTION/NAME; the section is `train`, `health`, or the split that was evaluated. {} for other events."""
    section = line.get("event") or line.get("split") or "train"
    if "event" in line and section != "health":
        return {}
    return {f"{section}/{name}": value for name, value in line.items() if name not in PLACE and is_number(value)}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def happened(line: dict[str, Any]) -> str | None:
    """What a line's event was, in words; None for lines that are numbers."""
    if line.get("event") in (None, "health"):
        return None
    rest = ", ".join(f"{name} {value}" for name, value in line.items() if name not in PLACE)
    return f"{line['event']}: {rest}" if rest else line["event"]
