"""A checkpoint's files: each worker's pieces in one safetensors file, and the index that says what lies where.

The writer streams (no second copy in memory; a GPU's tensors pass through it a chunk at a time) and hashes as it goes; reading
is the safetensors library's. Neither pickles. `index`: {tensor: {"shape", "dtype", "pieces": [{"file", "offset", "shape",
"rowwise"}]}}; a piece is found in its file under `key(name, offset)`.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from sml_dist.train.state import Piece
from sml_dist.train.storage import CHUNK, Storage

DTYPES = {
    torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

Index = dict[str, dict[str, Any]]


class Incomplete(Exception):
    """A tensor that a checkpoint does not hold, or not all of."""


def key(name: str, offset: tuple[int, ...] | list[int]) -> str:
    return f"{name}@{','.join(map(str, offset))}"


def chunks(pieces: list[Piece]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file."""
    header, end = {}, 0
    for piece in pieces:
        size = piece.tensor.numel() * piece.tensor.element_size()
        header[key(piece.name, piece.offset)] = {
            "dtype": DTYPES[piece.tensor.dtype], "shape": list(piece.tensor.shape), "data_offsets": [end, end + size],
        }  # fmt: skip
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for piece in pieces:
        data = piece.tensor.reshape(-1).view(torch.uint8)
        for start in range(0, len(data), CHUNK):
            yield memoryview(data[start : start + CHUNK].cpu().numpy())


def index_of(pieces: list[Piece], file: str) -> Index:
    """One worker's part of the index."""
    found: Index = {}
    for piece in pieces:
        entry = found.setdefault(piece.name, {"shape": list(piece.whole), "dtype": DTYPES[piece.tensor.dtype], "pieces": []})
        entry["pieces"].append({"file": file, "offset": list(piece.offset), "shape": list(piece.shape), "rowwise": piece.rowwise})
    return found


def merged(parts: list[Index]) -> Index:
    """The whole index. Raises Incomplete if a tensor is not covered, each entry once."""
    whole: Index = {}
    for part in parts:
        for name, entry in part.items():
            whole.setdefault(name, entry | {"pieces": []})["pieces"] += entry["pieces"]
    for name, entry in whole.items():
        held, places = sum(_size(piece["shape"]) for piece in entry["pieces"]), {tuple(piece["offset"]) for piece in entry["pieces"]}
        if held != _size(entry["shape"]) or len(places) != len(entry["pieces"]):
            raise Incomplete(f"{name}: the pieces hold {held:,} of {_size(entry['shape']):,} entries")
    return whole


def nonfinite(pieces: list[Piece], advance: Callable[[int], None] = lambda size: None) -> str | None:
    """The first tensor with a number that is not finite; `advance` is told of the bytes that were looked at.

    NumPy alone, so that a background thread opens no second OpenMP team.
    """
    for piece in pieces:
        if not piece.tensor.is_floating_point():
            continue
        flat = piece.tensor.reshape(-1)
        for start in range(0, len(flat), 1 << 20):
            part = flat[start : start + (1 << 20)].cpu().numpy()
            if not np.isfinite(part.sum(dtype=np.float32)) and not np.isfinite(part).all():
                return piece.name
            advance(part.nbytes)
    return None


class CheckpointReader:
    """Fills pieces from the files of a checkpoint that lies in the folder `name` of a storage."""

    def __init__(self, storage: Storage, name: str, index: Index):
        self.storage, self.name, self.index = storage, name, index

    def holds(self, name: str) -> bool:
        return name in self.index

    def fill(self, pieces: list[Piece]) -> set[str]:
        """Copies what the pieces cover into their tensors; names the rowwise ones that got the state of wider pieces.

        Raises Incomplete where the checkpoint does not hold it all.
        """
        inexact = set()
        for file in self._files(pieces):
            with safe_open(self.storage.path(f"{self.name}/{file}"), "pt") as stored:
                for piece in pieces:
                    for source in self._sources(piece, file):
                        _copy(stored, source, piece, self.storage.beat)
                        if piece.rowwise and _overlap(piece, source)[1][1] < source["shape"][1]:
                            inexact.add(piece.name)
        return inexact

    def _files(self, pieces: list[Piece]) -> list[str]:
        files = set()
        for piece in pieces:
            sources = list(self._sources(piece))
            covered = sum(_size(_overlap(piece, source)[1]) for source in sources)
            if covered != _size(piece.shape):
                raise Incomplete(f"{piece.name}: rows and columns {piece.offset} + {piece.shape} are not all there")
            files |= {source["file"] for source in sources}
            if piece.rowwise and len(sources) > 1:
                piece.tensor.zero_()
        return sorted(files)

    def _sources(self, piece: Piece, file: str | None = None) -> Iterator[dict[str, Any]]:
        entry = self.index.get(piece.name)
        if entry is None or len(entry["shape"]) != len(piece.whole):
            raise Incomplete(f"{piece.name} is not in the checkpoint")
        for source in entry["pieces"]:
            if (file is None or source["file"] == file) and _size(_overlap(piece, source)[1]):
                yield source


def _overlap(piece: Piece, source: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(start, shape) of what a wanted piece and a stored one have in common."""
    start = tuple(max(a, b) for a, b in zip(piece.offset, source["offset"], strict=True))
    ends = ((a + n, b + m) for a, n, b, m in zip(piece.offset, piece.shape, source["offset"], source["shape"], strict=True))
    return start, tuple(max(min(pair) - first, 0) for pair, first in zip(ends, start, strict=True))


def _copy(stored: Any, source: dict[str, Any], piece: Piece, beat: Callable[[], None]) -> None:
    """Some rows at a time, and a beat for each."""
    name = key(piece.name, source["offset"])
    if not piece.whole:
        piece.tensor.copy_(stored.get_tensor(name))
        return
    (first, *start), (count, *shape) = _overlap(piece, source)
    step = max(1, CHUNK // (piece.tensor.element_size() * _size(source["shape"][1:])))
    for row in range(first, first + count, step):
        _copy_rows(stored.get_slice(name), source, piece, (row, *start), (min(step, first + count - row), *shape))
        beat()


def _copy_rows(stored: Any, source: dict[str, Any], piece: Piece, start: tuple[int, ...], shape: tuple[int, ...]) -> None:
    here = tuple(slice(a - o, a - o + n) for a, o, n in zip(start, piece.offset, shape, strict=True))
    there = tuple(slice(a - o, a - o + n) for a, o, n in zip(start, source["offset"], shape, strict=True))
    rows = stored[there[0].start : there[0].stop]
    if not piece.rowwise:
        piece.tensor[here] = rows[(slice(None), *there[1:])]
    elif shape[1] == piece.shape[1]:
        piece.tensor.view(-1)[here[0]] = rows.reshape(-1)  # one number a row, whatever the columns
    else:
        piece.tensor.view(-1)[here[0]].add_(rows.reshape(-1).to(piece.tensor.device), alpha=shape[1] / piece.shape[1])


def _size(shape: Any) -> int:
    return int(np.prod(shape, dtype=np.int64))
