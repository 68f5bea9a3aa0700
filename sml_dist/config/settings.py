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
    """The spec `cls` of a YAML file with `a.b=c` overrides, `resolve` as above. Raises InputError that names the file and each wrong key.

    `set`, the overrides of a sweep's or a study's base, is added to: those given come after the file's, and the later one wins. An empty
    list clears it.
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
