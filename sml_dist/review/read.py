"""Runs and sweeps as their folders tell of them, for pages."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sml_dist.config.file import read_yaml
from sml_dist.config.settings import load_settings
from sml_dist.config.tune import SweepConfig
from sml_dist.credentials import scrub
from sml_dist.spec import InputError
from sml_dist.train.run_folder import RunFolder, objects
from sml_dist.trials import BASE, SWEEP, Sweep, read_trials

Line = dict[str, Any]
SPLITS = ("valid", "test")


@dataclass(frozen=True)
class Run:
    """A run, finished or not; what it has not written yet is {} or None."""

    path: Path
    config: dict[str, Any]
    lines: list[Line]
    summary: dict[str, Any] | None
    about: dict[str, Any]
    code: dict[str, Any]
    curves: dict[str, dict[str, Any]]  # by split

    @property
    def name(self) -> str:
        return self.config["run"]["name"]

    @cached_property
    def steps(self) -> list[Line]:
        return [line for line in self.lines if "event" not in line and "split" not in line]

    @cached_property
    def evaluations(self) -> list[Line]:
        return [line for line in self.lines if "split" in line]

    @cached_property
    def health(self) -> list[Line]:
        return [line for line in self.lines if line.get("event") == "health"]

    @cached_property
    def events(self) -> list[Line]:
        return [line for line in self.lines if line.get("event") not in (None, "health")]

    def flat_config(self) -> dict[str, str]:
        """What each dotted key says, to be shown. Whether it is a secret the last part tells: a table may have any name."""
        found = ((key, f"{key.rpartition('.')[2]}=", value) for key, value in flatten(self.config))
        return {key: scrub(f"{name}{value}").removeprefix(name) for key, name, value in found}


def positives(dataset: dict[str, Any], split: str) -> list[float]:
    """Of each label, of the dataset in an about.json."""
    found = dataset["positives"][split]
    return found if isinstance(found, list) else [found]


def is_sweep(path: str) -> bool:
    return (Path(path) / SWEEP).is_file()


def read_run(path: str) -> Run:
    """Raises InputError where the folder holds no run."""
    folder = RunFolder(path)
    settings = folder.path / "config.yaml"
    if not settings.is_file():
        raise InputError(f"{path} is no run (no config.yaml) and no sweep (no {SWEEP}); name the folder run.storage/run.name")
    config = read_yaml(str(settings), resolve=False)
    if not {"run", "data", "model"} <= config.keys():
        raise InputError(f"{settings} is no run's configuration; take the folder away, or start the run again")
    curves = {split: folder.read_json(f"curves_{split}.json") or {} for split in SPLITS}
    about, code = (folder.read_json(f"{name}.json") or {} for name in ("about", "code"))
    lines = list(objects(next(folder.new_lines("metrics.jsonl", whole=True))))
    return Run(folder.path, config, lines, folder.read_json("summary.json"), about, code, curves)


def read_sweep(path: str) -> Sweep:
    """Raises InputError where its configuration or a line of its trials is damaged."""
    folder = Path(path)
    base = read_yaml(str(folder / BASE), resolve=False) if (folder / BASE).is_file() else {}
    return Sweep(folder, load_settings(SweepConfig, str(folder / SWEEP), resolve=False), base, list(read_trials(folder)))


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in nested dicts."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from flatten(part, f"{prefix}{key}.")
    else:
        yield prefix[:-1], value
