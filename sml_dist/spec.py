"""`@spec`, the kind of record that configuration, schemas and manifests are made of, and the errors that a command shows as one line."""

import math
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

T = TypeVar("T")


def confined(path: str) -> str:
    """Checks a path that a manifest gives relative to its own folder. Raises ValueError if it leads out of that."""
    if not path or path.startswith("/") or "\\" in path or "://" in path or ".." in path.split("/"):
        raise ValueError(f"{path!r} leads out of the folder")
    return path


def named(name: str) -> str:
    """Checks the name of a folder to be made. Raises ValueError if it is empty, a path, or hidden."""
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise ValueError(f"{name!r} is no name of a folder; give one without / and \\ that does not begin with a dot")
    return name


def mounted(path: str) -> str:
    """Checks a path in a mounted file system. Raises ValueError if it is a URL, or empty."""
    if not path:
        raise ValueError("names no folder; give one, or . for the present one")
    if "://" in path:
        raise ValueError(f"{path} is a URL; name a path in a file system that all nodes mount, for files there are appended to and renamed")
    return path


Inside = Annotated[str, AfterValidator(confined)]  # path of a file within the folder of the manifest that names it
Name = Annotated[str, AfterValidator(named)]  # of a run or the like, which is also its folder's
Mounted = Annotated[str, AfterValidator(mounted)]  # a folder that runs live in
Measured = Annotated[float, Field(allow_inf_nan=True)]  # a statistic of data, which may overflow, as the variance of huge numbers does


class InputError(Exception):
    """The user's input or configuration is wrong. The message is one line that names the file, key or row, and the way out."""


class RunError(Exception):
    """A run failed for a reason other than its configuration and data."""


def many(count: float, what: str) -> str:
    """1 step, 2 steps, 0.5 steps."""
    return f"{f'{count:,}' if isinstance(count, int) else f'{count:g}'} {what}{'' if count == 1 else 's'}"


def one_line(error: Exception) -> str:
    """What an error of another library says, for a message of ours."""
    return " ".join(str(error).split()) or type(error).__name__


def first_fault(error: ValidationError) -> str:
    """The key and what is wrong there, as `fields.0.rows: input should be greater than 0`; checks of ours say it in their own words."""
    fault = error.errors()[0]
    says = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else fault["msg"][0].lower() + fault["msg"][1:]
    return f"{'.'.join(map(str, fault['loc']))}: {says}".removeprefix(": ")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def spec(cls: type[T]) -> type[T]:
    """A frozen, keyword-only, typed dataclass that refuses unknown keys, and infinity and NaN except in `Measured` fields."""
    return dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))(cls)


def to_dict(value: Any) -> Any:
    """A spec as plain dicts, lists and scalars, fit for JSON and YAML."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def json_safe(value: Any) -> Any:
    """Plain data with None for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: json_safe(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_dict(cls: type[T], data: Any) -> T:
    """The spec of plain data; raises pydantic.ValidationError."""
    return TypeAdapter(cls).validate_python(data)
