"""Embedding tables as safetensors, cut into files of so many rows, in float32 or rowwise quantised.

    none  fp32 (rows, D)                                       float32
    int8  int8 (rows, D) uint8, scale (rows,), bias (rows,)    w = q * scale + bias, scale = (max - min) / 255, bias = min
    int4  int4 (rows, ceil(D / 2)) uint8, scale, bias          as int8 with 15; the first of two numbers in a byte's low half

These are the numbers of FBGEMM's rowwise formats, scale and bias beside the rows and in float32.
"""

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from sml_dist.data.vocab import vocabulary_path
from sml_dist.serve.features import Quantize, Shard
from sml_dist.serve.layout import TABLES

SHARD_BYTES = 1 << 30
LEVELS = {"int8": 255, "int4": 15}

Rows = dict[str, Tensor]  # a table's tensors by name, each with a first dimension of rows


def quantized(weight: Tensor, quantize: Quantize) -> Rows:
    """(rows, D) float32 as the tensors of a table's file."""
    if quantize == "none":
        return {"fp32": weight.contiguous()}
    bias, top = weight.aminmax(dim=1)
    scale = (top - bias) / LEVELS[quantize]
    q = (
        ((weight - bias[:, None]) / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None])
        .round()
        .clamp(0, LEVELS[quantize])
        .to(torch.uint8)
    )
    if quantize == "int4":
        q = torch.nn.functional.pad(q, (0, q.shape[1] % 2))
        q = q[:, 0::2] | q[:, 1::2] << 4
    return {quantize: q.contiguous(), "scale": scale, "bias": bias}


def write_table(folder: Path, name: str, rows: Rows, shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """The files that a table's rows were written to."""
    count = len(next(iter(rows.values())))
    step = max(1, shard_bytes // sum(part[:1].numel() * part.element_size() for part in rows.values()))
    shards = [
        Shard(path=f"{TABLES}/{stem(name)}-{number:05d}.safetensors", first=first, rows=min(step, count - first))
        for number, first in enumerate(range(0, count, step))
    ]
    write_shards(folder, shards, rows)
    return shards


def stem(name: str) -> str:
    """A file's name for a field: odd characters as %XX, as its vocabulary has it."""
    return Path(vocabulary_path(name)).stem


def write_shards(folder: Path, shards: list[Shard], rows: Rows) -> None:
    (folder / TABLES).mkdir(exist_ok=True)
    for shard in shards:
        part = {key: value[shard.first : shard.first + shard.rows].contiguous() for key, value in rows.items()}
        write_tensors(part, folder / shard.path)


def write_tensors(parts: Rows, path: Path) -> None:
    """A safetensors file. Raises OSError where there is no room, as whatever else writes does."""
    try:
        safetensors.torch.save_file(parts, path)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from None


def read_table(folder: Path, shards: list[Shard]) -> Rows:
    parts = [safetensors.torch.load_file(folder / shard.path) for shard in shards]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
