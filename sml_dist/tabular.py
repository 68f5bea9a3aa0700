"""Rows of numbers as a CSV file and as a Markdown table; tables for the terminal."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

Row = dict[str, Any]
# A bar or a line end within a value would begin another cell or end the table.
ESCAPES = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": " ", "\r": " "})


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """The rows in full precision, with the columns of all of them; a cell is empty where its row lacks the column."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def markdown_table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """The rows as a table, numbers with four significant digits."""
    columns = list(columns or rows[0])
    lines = [columns, ["---"] * len(columns), *([shown(row[name]) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.translate(ESCAPES) for cell in line)} |" for line in lines) + "\n"


def rich_table(title: str, columns: Sequence[str], sides: str = "l", **style: Any) -> Table:
    """A table for the terminal, as yet without rows. `sides`: l (left) or r (right) for each column; the last letter goes for the rest."""
    table = Table(title=title, title_justify="left", **style)
    for name, side in zip(columns, sides.ljust(len(columns), sides[-1]), strict=False):
        table.add_column(name, justify="right" if side == "r" else "left")
    return table


def as_text(*parts: RenderableType, width: int) -> str:
    """What a terminal of that width would show, but that no string is wrapped."""
    console = Console(file=io.StringIO(), width=width, markup=False)
    for part in parts:
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))
    return console.file.getvalue()


def shown(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, float) and math.isnan(value):
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
