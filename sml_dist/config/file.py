"""A YAML file with dotted overrides, as plain data."""

from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sml_dist.config.faults import short
from sml_dist.spec import InputError


def read_yaml(
    path: str, overrides: list[str] | None = None, default: dict[str, Any] | None = None, *, resolve: bool = True
) -> dict[str, Any]:
    """What a YAML file and `a.b=c` overrides say, over `default`, as plain data. Raises InputError.

    `resolve=False` leaves `${...}` as it stands: in a folder that someone else made it could put the reader's environment on a page.
    """
    settings = []
    for override in overrides or []:
        if "=" not in override:
            raise InputError(f"--set {short(override)}: expected key=value, as in --set train.epochs=2")
        try:
            settings.append((override, OmegaConf.from_dotlist([override])))
        except (OmegaConfBaseException, YAMLError, IndexError) as error:
            why = short(getattr(error, "problem", None) or error, 240)
            raise InputError(f"--set {short(override)}: {why}; give a value as YAML writes it, as in [400, 400]") from None
    try:
        raw = OmegaConf.load(path)
        plain = OmegaConf.to_container(raw)  # a log of plain lines is one long key without a value
        if not isinstance(plain, dict) or list(plain.values()) == [None]:
            raise InputError(f"{path} holds no configuration; see configs/smoke.yaml for one")
        raw = OmegaConf.merge(default or {}, raw)
        for override, setting in settings:
            try:
                raw = OmegaConf.merge(raw, setting)
            except TypeError:
                raise InputError(f"--set {short(override)}: a list stands where a section should, or the reverse; give all of it") from None
        return OmegaConf.to_container(raw, resolve=resolve)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; configs/ holds ready ones") from None
    except OSError as error:
        raise InputError(f"{path or 'an empty name'}: {error.strerror}; give a YAML file, configs/ holds ready ones") from None
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {short(error, 240)}") from None
