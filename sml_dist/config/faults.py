"""What is wrong with a configuration, as one line: each wrong key with the nearest right one, or the way out."""

import dataclasses
import difflib
import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from sml_dist.models.zoo import ZOO

MOST = 5  # faults in a line
MOST_KEYS = 8  # of a section that a line names


def explain(cls: type, error: ValidationError, raw: dict[str, Any], base: type | None = None, kept: bool = False) -> str:
    """What keeps `raw` from being a `cls`, one fault for each key: where it is a union, that of its first branch.

    `base`: the class of the configuration that the key `base` of a sweep or a study names; its sections belong in `set`.
    `kept`: `raw` is of a file that nobody edits, so the faults come without their ways out.
    """
    faults = list({_key(fault["loc"], raw): fault for fault in reversed(error.errors())}.values())[::-1]
    lines = [_explain(cls, fault, raw, base) for fault in faults[:MOST]]
    lines = [line.partition("; ")[0] for line in lines] if kept else lines
    return "; ".join([*lines, f"and {len(faults) - MOST} more"] if len(faults) > MOST else lines)


def short(given: Any, most: int = 80) -> str:
    """The text on one line, without its middle if it is long: a wrong file may be a log, and a message ends with the way out."""
    text = " ".join(str(given).split())
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def keys(kind: Any, given: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key below a section. `given` says which keys a dictionary has, and by its `name` which class of a union counts."""
    given = given if isinstance(given, dict) else {}
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            yield prefix + field.name
            yield from keys(field.type, given.get(field.name), f"{prefix}{field.name}.")
    elif get_origin(kind) is dict:
        for key, part in given.items():
            yield from keys(get_args(kind)[1], part, f"{prefix}{key}.")
    else:
        for part in get_args(kind):
            if getattr(part, "name", None) in (None, given.get("name")):
                yield from keys(part, given, prefix)


def _explain(cls: type, fault: Any, raw: dict[str, Any], base: type | None) -> str:
    key, given = _key(fault["loc"], raw), fault["input"]
    place = fault["loc"]
    if fault["type"] != "value_error" and place[:1] == ("space",) and place[1:] and "." not in str(place[1]):
        way_out = "change it in the file, as in space: {train.lr: {choice: [0.001, 0.01]}}"
        return f"{short(key)}: --set takes the dots of a space's key for sections; {way_out}"
    if fault["type"] == "unexpected_keyword_argument":
        if base and {"base", "set"} <= cls.__dataclass_fields__.keys() and key in base.__dataclass_fields__:
            return f"{key} is a key of the base: put it into this file's `set`, or give {_instead(key, given)} in its place"
        section, _, last = key.rpartition(".")
        others = [name for name, entry in ZOO.items() if last in entry.config.__dataclass_fields__]
        if others and (model := fault["loc"][-2:][0]) in ZOO:  # --set changes a model's name and cannot take out its keys
            return f"{key} is a key of {', '.join(others)}, not of {model}; take it out of the file's {section} section"
        return f"{short(key)} is not a key; {_nearest(key, list(keys(cls, raw)))}"
    if fault["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{short(key)} is missing; add it to the file or give --set {short(key)}=..."
    if fault["type"].startswith("union_tag"):
        return f"{key}.name {short(given.get('name'))!r} is not in the zoo; it has {', '.join(ZOO)}"
    if fault["type"] in ("model_attributes_type", "dataclass_type"):
        parts = [part.rpartition(".")[2] for part in keys(cls, raw) if part.rpartition(".")[0] == key]  # none of a model without a name
        named = f"name={short(given)}" if isinstance(given, str) else "name=..."
        example = named if "name" in parts or not parts else f"{parts[0]}=..."
        has = f" (it has {', '.join(parts[:MOST_KEYS])}{' ...' * (len(parts) > MOST_KEYS)})" if parts else ""
        return f"{short(key)}: {'null' if given is None else short(repr(given))} is no section; say {short(key)}.{example}{has}"
    where = f"{short(key)}: " if key else ""
    if fault["type"] == "value_error":  # a check of ours: its line says what was given
        return f"{where}{short(fault['ctx']['error'], 240)}"
    if fault["type"] in ("tuple_type", "list_type") and isinstance(given, str | int | float):
        return f"{where}give a list, as in [{short(given)}]"
    return f"{where}{fault['msg'][0].lower()}{fault['msg'][1:]} (got {short(repr(given))})"


def _key(path: tuple[int | str, ...], raw: Any) -> str:
    """The dotted key of pydantic's `loc`, which also has a step for the class chosen of a union, such as a model's name."""
    found = []
    for step in path:
        if isinstance(step, str) and (not isinstance(raw, dict) or (step not in raw and step == raw.get("name"))):
            continue
        found.append(str(step))
        raw = raw.get(step) if isinstance(raw, dict) else None
    return ".".join(found)


def _instead(key: str, given: Any) -> str:
    return f"--set {short(repr('set=' + json.dumps(list(_settings(key, given)))))}"


def _settings(key: str, given: Any) -> Iterator[str]:
    if not isinstance(given, dict):
        yield f"{key}={given}"
        return
    for part, value in given.items():
        yield from _settings(f"{key}.{part}", value)


def _nearest(key: str, known: list[str]) -> str:
    """The most similar key: of the same section, else by its last part anywhere; if there is none, the section's keys."""
    section, _, last = key.rpartition(".")
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    by_last = {k.rpartition(".")[2]: k for k in reversed(known)}
    likest = difflib.get_close_matches(key, siblings, 1, 0.8) or [by_last[m] for m in difflib.get_close_matches(last, by_last, 1, 0.8)]
    if likest:
        return f"did you mean {likest[0]}?"
    return f"{short(section) or 'the configuration'} has {', '.join(k.rpartition('.')[2] for k in siblings)}"
