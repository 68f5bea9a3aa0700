"""Files on any file system: what their names and errors mean."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow as pa

from sml_dist.spec import InputError, one_line

PARTIAL = ".partial"  # how the names of files end that are still written, or whose writer was killed
# What file systems, decompressors and Parquet raise for damaged bytes; a flipped bit in a footer makes names that are not UTF-8.
UNREADABLE = (OSError, EOFError, UnicodeDecodeError, pa.ArrowException)


def file_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system that the user's URL names, and the path on it. Raises InputError."""
    try:
        return fsspec.url_to_fs(url)
    except (ValueError, ImportError) as error:  # an unknown protocol, or one whose package is not installed
        raise InputError(f"{url}: {one_line(error)}") from None


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns what file systems, decompressors and Parquet raise into one line that names the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {one_line(error)}") from None
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}; is the file whole? Fetch it again or leave it out") from None


def write_json(fs: fsspec.AbstractFileSystem, path: str, value: Any) -> None:
    """Whole or not at all."""
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with fs.open(f"{path}{PARTIAL}", "w") as file:
        json.dump(value, file, indent=1)
    fs.mv(f"{path}{PARTIAL}", path)
