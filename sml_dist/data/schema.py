"""A schema: what the columns of a raw click log are. A short YAML file, or the name of one that is built in.

    name: clicks
    format: csv                                     # csv | tsv | parquet
    label: click                                    # 0/1, or {column: rating, at_least: 4}, or {column: clicked, positive: ["yes"]}
    numeric:
      - {columns: [price, age], transform: log1p}   # dense: log1p | none | standard
      - {columns: price, transform: bucket, buckets: 32}   # categorical: bucket | log_square
    categorical:
      - {columns: C1..C26, min_count: 10}           # ids by vocabulary; row 0 is the rest
      - {columns: device_ip, hash: 1000000}         # ids by hash
    multivalued:
      - {columns: genres, separator: "|"}           # or a list column of Parquet
    sequences:
      - {columns: seen, of: item, max_length: 20}   # earlier values of `item`, the newest last
    timestamp: {column: time, unit: s, fields: [hour, weekday]}
    group: user
    weight: w

In place of `label`, several: `labels: {like: {column: rating, at_least: 4}, love: {column: rating, at_least: 5}}`.
`A1..A9` stands for A1, A2 to A9, and `A01..A12` for A01, A02 to A12.
`columns:` at the top names the columns of a text file without a header row.
"""

import re
from dataclasses import KW_ONLY, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import fsspec
from omegaconf import OmegaConf
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from sml_dist.data.dataset import check_table_names, positions
from sml_dist.data.sketch import MAX_BINS
from sml_dist.spec import InputError, first_fault, from_dict, one_line, spec

BUILT_IN = Path(__file__).parent / "schemas"
MAX_COLUMNS = 100_000
MAX_SEQUENCE = 1_000


def expand(columns: Any) -> Any:
    """Column names from a name, a range (`C1..C26`) or a list of both."""
    if isinstance(columns, str):
        columns = [columns]
    if not isinstance(columns, list):
        return columns
    return [name for item in columns for name in _expand_one(item)]


def _expand_one(item: Any) -> list[Any]:
    span = re.fullmatch(r"(.*?)(\d+)\.\.\1(\d+)", item) if isinstance(item, str) else None
    if not span:
        return [item]
    prefix, first, last = span[1], int(span[2]), int(span[3])
    if last < first:
        raise ValueError(f"{item} counts down; write {prefix}{span[3]}..{prefix}{span[2]}")
    if last - first >= MAX_COLUMNS:
        raise ValueError(f"{item} stands for {last - first + 1} columns, more than {MAX_COLUMNS}")
    width = len(span[2]) if span[2].startswith("0") else 0
    return [f"{prefix}{number:0{width}}" for number in range(first, last + 1)]


def _is_utf8(name: str) -> str:
    """Refuses half a surrogate pair, which YAML's "\\ud800" makes: no file, Arrow schema or terminal can hold it."""
    name.encode()
    return name


def _is_text(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        raise ValueError(f"YAML reads this as {value}, not as text; quote it exactly as it is spelled in the file")
    return value


Text = Annotated[str, AfterValidator(_is_utf8)]
Quoted = Annotated[Text, BeforeValidator(_is_text)]
Columns = Annotated[list[Text], BeforeValidator(expand), Field(min_length=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
HashRows = Annotated[int, Field(ge=2, lt=2**31)]


@spec
class Label:
    """1 where `column` is at least `at_least`, or where its text is one of `positive`; with neither the column itself, which then is
    0 or 1."""

    column: Text
    at_least: float | None = None
    positive: Annotated[Annotated[list[Quoted], Field(min_length=1)] | None, Field(exclude_if=lambda texts: texts is None)] = None

    def __post_init__(self) -> None:
        if self.at_least is not None and self.positive is not None:
            raise ValueError("give `at_least` (of a number) or `positive` (spellings), not both")


AsLabel = BeforeValidator(lambda value: {"column": value} if isinstance(value, str) else value)


@spec
class Numeric:
    """log1p: sign(x) log(1 + |x|); standard: (x - mean) / std of the training rows; bucket: quantiles of the training rows;
    log_square: floor(log(x)^2) for x > 2, else the integer below x (the winners of the Criteo challenge)."""

    columns: Columns
    transform: Literal["log1p", "none", "standard", "log_square", "bucket"] = "log1p"
    buckets: Annotated[int, Field(ge=2, le=MAX_BINS)] | None = None
    min_count: Count = 1

    def __post_init__(self) -> None:
        if (self.transform == "bucket") != (self.buckets is not None):
            raise ValueError("`buckets` belongs to `transform: bucket`, and that needs it")


@spec
class Categorical:
    """Ids by a vocabulary of the values seen `min_count` times in the training rows, or by `hash` into that many rows."""

    columns: Columns
    min_count: Count | None = None
    hash: HashRows | None = None

    def __post_init__(self) -> None:
        if self.min_count and self.hash:
            raise ValueError("give `min_count` (vocabulary) or `hash` (rows), not both")


@spec
class Multivalued(Categorical):
    """A list column, or a string whose values stand between separators; the first `max_length` values count."""

    separator: Annotated[Text, Field(min_length=1)] | None = None
    max_length: Count | None = None


@spec
class Sequence:
    """List columns in order, the newest value last: values of the categorical column `of`, whose vocabulary and table they share.
    The newest `max_length` values count. Values that `of` itself never has in the training rows share row 0."""

    columns: Columns
    of: Text
    max_length: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]
    separator: Annotated[Text, Field(min_length=1)] | None = None


@spec
class Timestamp:
    """A number in `unit` since 1970, a string in strptime's `format` (UTC), or a Parquet timestamp. `fields` become
    categorical fields <column>_hour (0-23), <column>_weekday (0-6, Monday first) and <column>_weekend (0, 1)."""

    column: Text
    unit: Literal["s", "ms", "us", "ns"] = "s"
    format: Text | None = None
    fields: list[Literal["hour", "weekday", "weekend"]] = field(default_factory=list)


@dataclass(frozen=True)
class Feature:
    """A categorical field of the prepared dataset and where its tokens come from."""

    name: str
    column: str
    origin: Literal["column", "list", "sequence", "log_square", "bucket", "hour", "weekday", "weekend"]
    _: KW_ONLY
    min_count: int = 1
    hash: int | None = None
    buckets: int | None = None
    max_length: int | None = None
    of: str | None = None  # the field whose ids a sequence holds

    @property
    def vocabulary(self) -> bool:
        """Whether it has one of its own."""
        return self.hash is None and self.of is None and self.origin != "bucket"

    @property
    def listed(self) -> bool:
        return self.origin in ("list", "sequence")

    @property
    def positions(self) -> list[str]:
        """The names of a sequence's positions; none for any other field."""
        return positions(self.name, self.max_length) if self.of else []


@spec
class Schema:
    name: Text
    format: Literal["csv", "tsv", "parquet"]
    label: Annotated[Label | None, AsLabel, Field(exclude_if=lambda label: label is None)] = None
    labels: Annotated[dict[Text, Annotated[Label, AsLabel]], Field(exclude_if=lambda labels: not labels)] = field(default_factory=dict)
    columns: Columns | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    missing: list[Quoted] = field(default_factory=list)  # further spellings of a missing value, such as NULL
    numeric: list[Numeric] = field(default_factory=list)
    categorical: list[Categorical] = field(default_factory=list)
    multivalued: list[Multivalued] = field(default_factory=list)
    sequences: Annotated[list[Sequence], Field(exclude_if=lambda sequences: not sequences)] = field(default_factory=list)
    timestamp: Timestamp | None = None
    group: Text | None = None
    weight: Text | None = None

    def __post_init__(self) -> None:
        if (self.label is None) == (not self.labels) or len(self.labels) == 1:
            raise ValueError("key 'label' is missing" if not self.labels else "give one `label`, or two or more under `labels`")
        names = [name for feature in self.features for name in (feature.name, *feature.positions)]
        _refuse(_repeated(names), "makes a categorical field twice")
        _refuse(_repeated([name for name, _, _ in self.dense]), "is a dense feature twice")
        inputs = {name for group in (self.numeric, self.categorical, self.multivalued) for item in group for name in item.columns}
        inputs |= {name for item in self.sequences for name in item.columns}
        _refuse([label.column for label in self.targets.values() if label.column in inputs], "is the label, so it cannot be a feature")
        single = {name for group in self.categorical for name in group.columns}
        _refuse([item.of for item in self.sequences if item.of not in single], "is what a sequence is `of`, but no categorical column")
        _refuse([self.weight] if self.weight in inputs else [], "is the weight, so it cannot be a feature")
        if not inputs:
            raise ValueError("no feature: give numeric, categorical or multivalued columns")
        if self.columns is not None:
            _refuse(_repeated(self.columns), "stands twice in `columns`")
            _refuse([name for name in self.used if name not in self.columns], "is used but not in `columns`")
        lists = [name for item in (*self.multivalued, *self.sequences) if item.separator is None for name in item.columns]
        _refuse(lists if self.format != "parquet" else [], "holds lists in a text file: give the `separator` between their values")
        if self.format == "parquet" and (self.columns or self.delimiter):
            raise ValueError("`columns` and `delimiter` belong to text files; Parquet names its own columns")
        if self.delimiter and (not self.delimiter.isascii() or self.delimiter in '"\r\n\0'):
            raise ValueError(f"`delimiter` {self.delimiter!r} must be one ASCII character, and no quote and no line end")

    @property
    def targets(self) -> dict[str, Label]:
        """What is to be predicted, by name: `label`, or all of `labels`."""
        return {"label": self.label} if self.label else self.labels

    @property
    def separator(self) -> str:
        return self.delimiter or {"csv": ",", "tsv": "\t"}[self.format]

    @property
    def dense(self) -> list[tuple[str, str, str]]:
        """(name, column, transform) of every dense feature."""
        return [(c, c, n.transform) for n in self.numeric if n.transform in ("log1p", "none", "standard") for c in n.columns]

    @property
    def features(self) -> list[Feature]:
        """Every categorical field: single-valued ones first, sequences last."""
        found = [
            Feature(f"{c}_{n.transform}", c, n.transform, min_count=n.min_count, buckets=n.buckets)
            for n in self.numeric
            if n.transform in ("log_square", "bucket")
            for c in n.columns
        ]
        found += [Feature(c, c, "column", min_count=g.min_count or 1, hash=g.hash) for g in self.categorical for c in g.columns]
        if self.timestamp:
            column = self.timestamp.column
            found += [Feature(f"{column}_{part}", column, part) for part in self.timestamp.fields]
        found += [
            Feature(c, c, "list", min_count=g.min_count or 1, hash=g.hash, max_length=g.max_length)
            for g in self.multivalued
            for c in g.columns
        ]
        found += [Feature(c, c, "sequence", max_length=g.max_length, of=g.of) for g in self.sequences for c in g.columns]
        return found

    @property
    def list_separators(self) -> dict[str, str | None]:
        return {column: group.separator for group in (*self.multivalued, *self.sequences) for column in group.columns}

    @property
    def numbers(self) -> list[str]:
        """Columns that must hold numbers, each once."""
        return list(dict.fromkeys(column for group in self.numeric for column in group.columns))

    @property
    def compared(self) -> set[str]:
        """Columns whose numbers are held against a threshold or an edge."""
        edges = [feature.column for feature in self.features if feature.origin in ("bucket", "log_square")]
        return {*edges, *(label.column for label in self.targets.values() if label.at_least is not None)}

    @property
    def inputs(self) -> list[str]:
        """Columns that a model's input is made of: what a row to be scored must have."""
        derived = [self.timestamp.column] if self.timestamp and self.timestamp.fields else []
        return list(dict.fromkeys([*self.numbers, *(f.column for f in self.features), *derived]))

    @property
    def used(self) -> list[str]:
        """Every column that prepare reads, each once."""
        labels = [label.column for label in self.targets.values()]
        others = [*labels, self.timestamp and self.timestamp.column, self.group, self.weight]
        return list(dict.fromkeys([*filter(None, others), *self.inputs]))


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _refuse(names: list[str], reason: str) -> None:
    if names:
        raise ValueError(f"column {names[0]!r} {reason}")


def built_in_names() -> list[str]:
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


A_FIELD = "name a categorical column, or let `transform: bucket` make one of a numeric column"


def load_schema(name: str) -> Schema:
    """The schema of a built-in name or a YAML file; raises InputError."""
    try:
        with fsspec.open(_location(name), "rb") as file:
            text = file.read()
    except FileNotFoundError:
        raise InputError(f"schema {name} does not exist; give a YAML file or one of: {', '.join(built_in_names())}") from None
    except OSError as error:
        raise InputError(f"schema {name} cannot be read: {one_line(error)}") from None
    try:
        data = OmegaConf.to_container(OmegaConf.create(text.decode()), resolve=True)
    except Exception as error:  # for a wrong !!tag or a deep nesting YAML raises whatever its constructors do, such as KeyError
        raise InputError(f"schema {name} is no valid YAML: {one_line(error)}") from None
    try:
        schema = from_dict(Schema, data)
    except ValidationError as error:
        raise InputError(f"schema {name}: {_explain(error)}") from None
    if not schema.features:
        raise InputError(f"schema {name}: no categorical field, and a model needs one: {A_FIELD}")
    check_table_names([feature.name for feature in schema.features if not feature.of], f"schema {name}")
    if schema.timestamp and "%Z" in (schema.timestamp.format or "").replace("%%", ""):  # here alone: datasets that have it stay readable
        hint = "write offsets (+0200) as %z, or UTC without any"
        raise InputError(f"schema {name}: timestamp: `format` has %Z, but the name of a time zone is not read; {hint}")
    return schema


def _location(name: str) -> str:
    if name in built_in_names():
        return str(BUILT_IN / f"{name}.yaml")
    if "/" in name or name.endswith((".yaml", ".yml")):
        return name
    near = get_close_matches(name, built_in_names(), 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"no built-in schema {name!r}{hint} (built in: {', '.join(built_in_names())}; or give a YAML file)")


SECTIONS = {
    "label": Label, "labels": Label, "numeric": Numeric, "categorical": Categorical, "multivalued": Multivalued,
    "sequences": Sequence, "timestamp": Timestamp,
}  # fmt: skip


UNKNOWN_KEY, MISSING_KEY = ("unexpected_keyword_argument", "extra_forbidden"), ("missing", "missing_argument")


def _explain(error: ValidationError) -> str:
    """The first fault in one line, with the nearest right key where one is unknown. A missing key that stands there misspelt is that."""
    fault, *others = error.errors()
    if fault["type"] in MISSING_KEY:
        *path, key = fault["loc"]
        beside = (other for other in others if other["type"] in UNKNOWN_KEY and [*other["loc"][:-1]] == path)
        fault = next((other for other in beside if get_close_matches(str(other["loc"][-1]), [str(key)])), fault)
    where = ".".join(str(step) for step in fault["loc"])
    if fault["type"] in UNKNOWN_KEY:
        *path, key = fault["loc"]
        known = [f.name for f in fields(SECTIONS[path[0]] if path else Schema)]
        near = get_close_matches(str(key), known, 1)
        return f"unknown key {where!r}" + (f"; did you mean {near[0]!r}?" if near else f"; keys here: {', '.join(known)}")
    if fault["type"] in MISSING_KEY:
        return f"key {where!r} is missing"
    return first_fault(error)
