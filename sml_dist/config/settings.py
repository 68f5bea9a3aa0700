"""Configuration of a study or a sweep: a `@spec` from YAML and dotted overrides, faults as one line."""

from typing import TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from sml_dist.spec import InputError, from_dict

T = TypeVar("T")


def load_settings(cls: type[T], path: str, overrides: list[str] | None = None) -> T:
    """The spec `cls` of a YAML file with `a.b=c` overrides. Raises InputError that names the file and each wrong key."""
    try:
        raw = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(overrides or []))
        return from_dict(cls, OmegaConf.to_container(raw, resolve=True))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; configs/ holds ready ones") from None
    except (OmegaConfBaseException, YAMLError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}" for fault in error.errors())
        raise InputError(f"{path}: {'; '.join(faults)}") from None
