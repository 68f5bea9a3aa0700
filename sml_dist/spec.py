"""`@spec`, the one kind of record that configuration, schemas and manifests are made of, and the error that becomes one line."""

from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

T = TypeVar("T")


def confined(path: str) -> str:
    """The path, which a manifest gives relative to its own folder. Raises ValueError for one that leads out of it."""
    if not path or path.startswith("/") or "\\" in path or "://" in path or ".." in path.split("/"):
        raise ValueError(f"{path!r} leads out of the folder")
    return path


def named(name: str) -> str:
    """The name, which a folder will have. Raises ValueError for one that leads elsewhere, or that no listing shows."""
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise ValueError(f"{name!r} is no name of a folder; give one without / and \\ that does not begin with a dot")
    return name


def mounted(path: str) -> str:
    """The path, which this machine's file system has. Raises ValueError for a URL, or none at all."""
    if not path:
        raise ValueError("names no folder; give one, or . for the present one")
    if "://" in path:
        raise ValueError(f"{path} is a URL, and a run needs a file system that all its nodes mount, for it appends and renames")
    return path


Inside = Annotated[str, AfterValidator(confined)]  # a file's path below the folder of the manifest that names it
Name = Annotated[str, AfterValidator(named)]  # of what has a folder of that name
Mounted = Annotated[str, AfterValidator(mounted)]  # a folder that runs live in
Measured = Annotated[float, Field(allow_inf_nan=True)]  # what data come to, such as the variance of very large numbers


class InputError(Exception):
    """The user's input or configuration is wrong: one line that names the file, key or row, and the way out."""


class RunError(Exception):
    """A run failed for a reason that its configuration and data do not show."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
def spec(cls: type[T]) -> type[T]:
    """A frozen, keyword-only, typed dataclass that refuses unknown keys and, but for what is `Measured`, infinity and NaN."""
    return dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))(cls)


def to_dict(value: Any) -> Any:
    """A spec as plain dicts, lists and scalars, fit for JSON and YAML."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def from_dict(cls: type[T], data: Any) -> T:
    """The spec of plain data; raises pydantic.ValidationError."""
    return TypeAdapter(cls).validate_python(data)
