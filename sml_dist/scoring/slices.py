"""Rows by the values of a field, or by group: which rows hold each, and what the value is called."""

from collections.abc import Callable
from difflib import get_close_matches

import numpy as np
import pyarrow as pa

from sml_dist.data.dataset import Manifest, matrix, multi_column
from sml_dist.data.vocab import read_tokens
from sml_dist.scoring.trained import Described
from sml_dist.spec import InputError

OTHERS = "(rare or unseen)"  # id 0: too few in the training rows, or none


def check_field(name: str, manifest: Manifest) -> None:
    known = [*(["group"] if manifest.group else []), *(field.name for field in manifest.fields)]
    if name not in known:
        near = get_close_matches(name, known, 1)
        numeric = f"{name} is numeric, and a slice is one value of a categorical field; " if name in manifest.dense else ""
        raise InputError(f"--by {name}: {numeric}the dataset has {', '.join(known)}{f'; did you mean {near[0]}?' if near else ''}")


def values_of(name: str, table: pa.Table, manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """(rows, values): which row of the table holds which id or group, each pair once.

    A row of a multi-valued field may hold several, or none; its rare values are all id 0, which it holds once for that.
    """
    if name == "group":
        return np.arange(len(table)), table["group"].to_numpy()
    single = [field.name for field in manifest.single]
    if name in single:
        return np.arange(len(table)), matrix(table["ids"])[:, single.index(name)].astype(np.int64)
    lists = table[multi_column(name)].combine_chunks()
    rows = np.repeat(np.arange(len(lists)), np.diff(lists.offsets.to_numpy()))
    pairs = np.unique(np.stack([rows, lists.flatten().to_numpy(zero_copy_only=False)]), axis=1).astype(np.int64)
    return pairs[0], pairs[1]


def namer(name: str, model: Described) -> Callable[[int], str]:
    """What an id of a field is called: its token where there is a vocabulary."""
    name = next((field.of for field in model.manifest.fields if field.name == name and field.of), name)
    if name not in model.manifest.source.get("vocabularies", {}):
        return str
    tokens = read_tokens(model.dataset, name)
    return lambda number: (tokens[number - 1].as_py() or "(missing)") if number else OTHERS


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """The values that the most rows hold, of two with as many the smaller first."""
    found, rows = np.unique(values, return_counts=True)
    return found[np.argsort(-rows, kind="stable")[:count]]
