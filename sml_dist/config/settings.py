"""Configuration from YAML and dotted overrides, faults as one line; of a study or a sweep as its `@spec`."""

from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from sml_dist.config.faults import explain, short
from sml_dist.spec import InputError, from_dict

T = TypeVar("T")


def read_yaml(
    path: str, overrides: list[str] | None = None, default: dict[str, Any] | None = None, *, resolve: bool = True
) -> dict[str, Any]:
    """What a YAML file and `a.b=c` overrides say, over `default`, as plain data. Raises InputError.

    `resolve=False` leaves `${...}` as it stands: in a folder that another may have made it would put the reader's environment on a page.
    """
    for override in overrides or []:
        if "=" not in override:
            raise InputError(f"--set {short(override)}: expected key=value, as in --set train.epochs=2")
    try:
        raw = OmegaConf.load(path)
        plain = OmegaConf.to_container(raw)  # a log of plain lines is one long key without a value
        if not isinstance(plain, dict) or list(plain.values()) == [None]:
            raise InputError(f"{path} holds no configuration; see configs/smoke.yaml for one")
        raw = OmegaConf.merge(default or {}, raw, OmegaConf.from_dotlist(overrides or []))
        return OmegaConf.to_container(raw, resolve=resolve)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; configs/ holds ready ones") from None
    except OSError as error:
        raise InputError(f"{path or 'an empty name'}: {error.strerror}; give a YAML file, configs/ holds ready ones") from None
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {short(error, 240)}") from None


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
        raise InputError(f"{path}: {explain(cls, error, raw)}") from None
