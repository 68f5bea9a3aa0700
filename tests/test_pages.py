"""What the Markdown pages name is there."""

import re
from pathlib import Path

import pytest
import typer

from sml_dist.cli import app

ROOT = Path(__file__).parents[1]
GENERATED = {"runs", "demo", "bench", "wandb"}  # which git ignores, as it does hidden folders
PLACES = [place for place in ROOT.iterdir() if place.name not in GENERATED and not place.name.startswith(".")]
PAGES = sorted(page for place in PLACES for page in ([place] if place.suffix == ".md" else place.rglob("*.md")))
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_a_file_or_a_heading(page: Path):
    for link in LINK.findall(page.read_text()):
        path, _, heading = link.partition("#")
        if not path.startswith(("http:", "https:")):
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not heading or heading in headings(target), link


def headings(page: Path) -> set[str]:
    """As GitHub turns them into anchors."""
    return {re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in re.findall(r"(?m)^#+ (.+)$", page.read_text())}


def test_every_command_stands_in_the_readme():
    readme = ROOT / "README.md"
    assert readme in PAGES
    text = readme.read_text()
    for name in typer.main.get_command(app).commands:
        assert re.search(rf"`(sml-dist )?{name}[ `]", text), name
