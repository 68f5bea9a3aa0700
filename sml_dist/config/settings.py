"""The configuration of a study or a sweep: its `@spec`, from YAML and dotted overrides."""

from typing import TypeVar

from omegaconf import OmegaConf
from pydantic import ValidationError

from sml_dist.config.faults import explain
from sml_dist.config.file import read_yaml
from sml_dist.config.run import RunConfig
from sml_dist.spec import InputError, from_dict

T = TypeVar("T")


def load_settings(cls: type[T], path: str, overrides: list[str] | None = None, *, resolve: bool = True) -> T:
    """The spec `cls` of a YAML file with `a.b=c` overrides, `resolve` as in read_yaml. Raises InputError that names file and wrong keys.

    `set=[...]` adds to the file's `set`, the overrides of a sweep's or a study's base: of two for one key the later wins. `set=[]`
    clears the list.
    """
    raw = read_yaml(path, overrides, resolve=resolve)
    if given := [override for override in overrides or [] if override.startswith("set=")]:
        parts = [read_yaml(path).get("set"), *(OmegaConf.to_container(OmegaConf.from_dotlist([each]))["set"] for each in given)]
        if all(isinstance(part, list | None) for part in parts):
            empty = max((i for i, part in enumerate(parts) if not part), default=0)  # `set=[]` clears what came before it
            raw["set"] = [each for part in parts[empty:] for each in part or []]
    try:
        return from_dict(cls, raw)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(cls, error, raw, RunConfig)}") from None
