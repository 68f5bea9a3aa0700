"""One self-contained HTML page: sections of facts, tables and figures. It opens without a network."""

import base64
import gzip
import html
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import plotly
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader


@dataclass(frozen=True)
class Fact:
    """A number that a reader looks for first."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""

    def numeric(self, column: int) -> bool:
        return any(isinstance(row[column], int | float) for row in self.rows)


@dataclass(frozen=True)
class Section:
    """`text` is prose, what stands between backticks in it code; `code` is shown as it is, folded."""

    title: str
    text: str = ""
    facts: list[Fact] = field(default_factory=list)
    figures: list[go.Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    code: str = ""

    def __bool__(self) -> bool:
        return bool(self.facts or self.figures or self.tables or self.code)


def render(title: str, subtitle: str, facts: list[Fact], sections: list[Section]) -> str:
    """Empty sections are left out."""
    environment = Environment(loader=PackageLoader("sml_dist.review"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = shown
    environment.filters["prose"] = prose
    environment.filters["as_json"] = as_json
    page = environment.get_template("page.html.j2")
    return page.render(title=title, subtitle=subtitle, facts=facts, sections=[s for s in sections if s], plotly=packed_plotly())


@cache
def packed_plotly() -> str:
    """plotly.js (its package has no smaller bundle) in base64 of gzip, which the page unpacks itself: 2.0 MB where the file has 4.8."""
    script = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(script, 9, mtime=0)).decode()


def as_json(figure: go.Figure) -> str:
    """Fit to stand in a script element."""
    plain = figure.to_plotly_json()
    plain["layout"].pop("template", None)
    return json.dumps(plain, separators=(",", ":"), default=str).replace("<", "\\u003c")


def prose(text: str) -> str:
    """HTML of plain text with code between backticks."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


def shown(value: Any) -> str:
    """A table's cell."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"
