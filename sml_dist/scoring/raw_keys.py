"""Raw columns that are passed on as keys: each has one type in the whole output, whatever the files of a log have it as.

Parquet files of one log may differ: pandas writes a column of integers as float64 where values are missing, and as null where all are.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from sml_dist.data.clean import plain
from sml_dist.data.schema import Schema
from sml_dist.data.sources import types_of
from sml_dist.data.spans import RawFile
from sml_dist.spec import InputError, one_line

READERS = 16  # of footers at a time: on a remote file system each is a wait
WAY_OUT = "write it as one type, or leave it out of --keys"


def key_types(files: Sequence[RawFile], schema: Schema, keys: Sequence[str]) -> dict[str, pa.DataType]:
    """The type that holds what every file has in these columns. Raises InputError."""
    if schema.format != "parquet" or not keys:
        return dict.fromkeys(keys, pa.string())
    found = dict.fromkeys(keys, pa.null())
    with ThreadPoolExecutor(READERS) as pool:
        for file, types in zip(files, pool.map(types_of, files), strict=True):
            for key in keys:
                found[key] = joined(key, found[key], plain_type(types.field(key).type), file)
    return found


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Files differ in their dictionaries, extension types and views; and predict's writer takes lists of a fixed size for lists that
    lack nothing."""
    kind = plain(pa.nulls(0, kind)).type
    return pa.list_(kind.value_type) if pa.types.is_fixed_size_list(kind) else kind


def joined(key: str, earlier: pa.DataType, kind: pa.DataType, file: RawFile) -> pa.DataType:
    try:
        both = pa.unify_schemas([pa.schema({key: each}) for each in (earlier, kind)], promote_options="permissive")
    except pa.ArrowException:
        raise InputError(f"{file.path}: column {key!r} is {kind}, in files before it {earlier}; {WAY_OUT}") from None
    return both.field(key).type


def as_key(column: pa.ChunkedArray, key: str, kind: pa.DataType, path: str) -> pa.Array:
    """The column in its output's type, where each value keeps its worth. Raises InputError."""
    try:
        return plain(column.combine_chunks()).cast(kind)
    except pa.ArrowException as error:
        raise InputError(f"{path}: column {key!r} cannot be {kind}, as other files have it: {one_line(error)}; {WAY_OUT}") from None
