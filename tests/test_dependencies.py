"""What the package imports is what it says that it needs."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "sml_dist/bench/peers"  # run in environments of their own


def imported() -> Iterator[str]:
    """The top-level modules that the package's files import, wherever they do."""
    for path in (path for path in ROOT.glob("sml_dist/**/*.py") if PEERS not in path.parents):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module.partition(".")[0]


def named(requirements: list[str]) -> set[str]:
    """The distributions that requirements name; the two builds of fbgemm are one."""
    found = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements if line[:1].isalpha()}
    return {name.removesuffix("-cpu") for name in found}


def test_every_distribution_that_the_package_imports_is_declared_and_locked_by_name():
    places = packages_distributions()
    modules = {*imported()} - sys.stdlib_module_names - {"sml_dist"}
    needed = {module: named(places[module]) for module in modules}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = named(project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra])
    asked = named([line for path in ROOT.glob("cluster/*.in") if path.stem != "dev" for line in path.read_text().splitlines()])
    assert not [module for module, owners in needed.items() if not owners & declared]
    assert not [module for module, owners in needed.items() if not owners & (asked | {"torch"})]  # whose build differs by machine
