"""Scores raw rows with an exported folder; needs torch and pyarrow, nothing else. Each export holds this file as loader.py.

    Model("EXPORT").score(table)    # a pyarrow table of raw columns -> probabilities, (B,) float32

It says in few lines what sml_dist/data does to the good rows of a log, for systems without sml_dist; tests hold both together.
"""

import json
import math
import mmap
from fractions import Fraction
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class Model:
    """`spec` is features.json; a table is a list of (first row, tensors), one for each of its files, mapped into memory."""

    def __init__(self, folder: str | Path):
        self.folder, self.spec = Path(folder), json.loads((Path(folder) / "features.json").read_text())
        self.graph = torch.export.load(self.folder / "dense.pt2").module()
        self.tables = [[(s["first"], read_tensors(self.folder / s["path"])) for s in field["shards"]] for field in self.spec["fields"]]
        self.vocabulary = cache(lambda path: {t: i for i, t in enumerate(pq.read_table(self.folder / path)["token"].to_pylist(), 1)})

    def score(self, rows: pa.Table) -> Tensor:
        return torch.sigmoid(self.logits(*self.features(rows))[0])

    @torch.no_grad()
    def logits(self, ids: list[tuple[Tensor, Tensor | None]], dense: Tensor) -> tuple[Tensor, Tensor]:
        """(logit, contributions (B, L)) of dense (B, N) and ids: of a list flat, with lengths (B,); else (B, 1 or places), -1 is none."""
        dim, parts = self.spec["dim"], []
        for table, (i, lengths), field in zip(self.tables, ids, self.spec["fields"], strict=True):
            x = take(table, i.clamp(min=0).flatten())[:, :dim].view(*i.shape, dim)
            parts.append(x * (i >= 0)[..., None] if lengths is None else pooled(x, lengths, field["pooling"])[:, None])
        return self.graph(torch.cat(parts, 1), dense)

    def features(self, rows: pa.Table) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor]:
        edged = {field["column"] for field in self.spec["fields"] if field["origin"] in ("bucket", "log_square")}
        dense = [dense_feature(self.number(rows[n["column"]].combine_chunks(), n["column"] in edged), n) for n in self.spec["dense"]]
        return [self.ids(rows, field) for field in self.spec["fields"]], torch.stack(dense, 1) if dense else torch.zeros(len(rows), 0)

    def ids(self, rows: pa.Table, field: dict) -> tuple[Tensor, Tensor | None]:
        column, origin = rows[field["column"]].combine_chunks(), field["origin"]
        if origin in ("list", "sequence"):
            x = column if field["separator"] is None else pc.split_pattern(self.text(column), field["separator"])
            x = x.cast(pa.list_(getattr(x.type, "value_type", pa.string())))  # a column of nulls alone has no value type
            tokens, most, step = iter(self.text(x.flatten()).to_pylist()), field["max_length"], -1 if origin == "sequence" else 1
            cells = [[t for _ in range(n or 0) if (t := next(tokens))][::step][:most] for n in pc.list_value_length(x).to_pylist()]
            if origin == "sequence":  # the newest first
                return torch.tensor([self.lookup(c, field).tolist() + [-1] * (most - len(c)) for c in cells]).long().view(-1, most), None
            return self.lookup([t for c in cells for t in c], field), torch.tensor([len(c) for c in cells]).long()
        if origin == "bucket":  # 0 is missing
            x, edges = self.number(column, True), torch.tensor(field["edges"], dtype=torch.float64)
            return torch.where(x.isnan(), 0, 1 + torch.searchsorted(edges, x.nan_to_num(), right=True))[:, None], None
        if origin == "log_square":
            return self.lookup([log_square(x) for x in self.number(column, True).tolist()], field)[:, None], None
        return self.lookup(self.text(column).to_pylist() if origin == "column" else self.times(column, origin), field)[:, None], None

    def lookup(self, tokens: list[str], field: dict) -> Tensor:
        """Ids by hash, or by vocabulary: 1 and up in the file's order; 0 is any other value."""
        known = None if field["hash"] else self.vocabulary(field["vocabulary"])
        return torch.tensor([hash64(field["of"] + "\0" + t) % field["hash"] if known is None else known.get(t, 0) for t in tokens]).long()

    def text(self, x: pa.Array) -> pa.Array:
        """Strings, "" where missing; whole numbers are their digits."""
        x = pa.array([u and str(u) for u in x.to_pylist()], pa.string()) if str(x.type) == "extension<arrow.uuid>" else x
        x = x.cast(pa.float32()) if pa.types.is_float16(x.type) else x  # Arrow computes little on half precision
        if pa.types.is_floating(x.type):
            whole = pc.if_else(pc.and_(pc.equal(pc.floor(x), x), pc.less(pc.abs(x), 2.0**63)), x, None).cast(pa.int64())
            x = pc.coalesce(whole.cast(pa.string()), pc.if_else(pc.is_nan(x), None, x.cast(pa.string())))
        return pc.if_else(pc.is_in(x := x.cast(pa.string()), pa.array([None, *self.spec["missing"]], pa.string())), "", x)

    def number(self, x: pa.Array, compared: bool = False) -> Tensor:
        """float64, NaN where missing; a float32 0.7 is 0.699999988, but 0.7 in a column that is held against edges."""
        text = pc.utf8_trim_whitespace(self.text(x))
        x = x if any(getattr(pa.types, f"is_{t}")(x.type) for t in ("boolean", "integer", "float64" if compared else "floating")) else text
        x = pc.if_else(pc.equal(text, ""), None, x).cast(pa.float64(), safe=False)
        if not pc.all(pc.is_finite(x.cast(pa.float32(), safe=False)), min_count=0).as_py():
            raise ValueError("a number is not finite")
        return torch.tensor(pc.fill_null(x, math.nan).to_pylist(), dtype=torch.float64)

    def times(self, column: pa.Array, part: str) -> list[str]:
        form, unit = (self.spec["timestamp"][key] for key in ("format", "unit"))
        x = column.cast(pa.timestamp("s")) if pa.types.is_date(column.type) else column
        if form and not pa.types.is_temporal(x.type):  # strptime takes 31 April for 1 May, but leaves it where the month is read again as 1
            x, again = pc.strptime(self.text(x), format=form, unit="s"), pc.binary_join_element_wise(self.text(x), "1 0 +0000", " |")
            day, in_january = (pc.day(pc.strptime(again, format=f"{form} |%{one} %H %z", unit="s")) for one in "Sm")
            if day != in_january:
                raise ValueError("a time names a day that does not exist in its month")
        x, unit = (x.cast(pa.int64()), x.type.unit) if pa.types.is_temporal(x.type) else (self.text(column), unit)
        of = {"hour": lambda h: h % 24, "weekday": lambda h: (h // 24 + 3) % 7, "weekend": lambda h: int((h // 24 + 3) % 7 >= 5)}
        if max(map(abs, seconds := [math.floor(Fraction(t)) // PER_SECOND[unit] for t in x.to_pylist()]), default=0) >= 1 << 38:
            raise ValueError("a time lies beyond the year 10,680")
        return [str(of[part](s // 3600)) for s in seconds]


def hash64(text: str) -> int:  # fmix64(fnv1a64(utf8)), as sml_dist/data/hashing.py says
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h = (h ^ h >> 33) * factor % 2**64
    return h ^ h >> 33


def dense_feature(x: Tensor, number: dict) -> Tensor:
    x = x.sign() * x.abs().log1p() if number["transform"] == "log1p" else x
    x = (x - number["mean"]) / (number["std"] or 1.0) if number["transform"] == "standard" else x
    return x.nan_to_num().clamp(torch.finfo(torch.float32).min, torch.finfo(torch.float32).max).float()


def log_square(x: float) -> str:
    return "" if math.isnan(x) else str(math.floor(math.log(x) ** 2)) if x > 2 else f"SP{math.floor(max(x, -1e15))}"


def take(table: list, ids: Tensor) -> Tensor:
    """Rows as float32; an int8 or int4 number q stands for q * scale + bias of its row; a byte has two int4, the low half first."""
    if len(table) > 1:
        parts = torch.bucketize(ids, torch.tensor([first for first, _ in table]), right=True) - 1
        rows = [take([(0, tensors)], ids[parts == i] - first) for i, (first, tensors) in enumerate(table)]
        return torch.cat(rows)[parts.argsort(stable=True).argsort()]
    if "fp32" in (tensors := table[0][1]):
        return tensors["fp32"][ids]
    q = tensors["int8"][ids] if "int8" in tensors else torch.stack([(p := tensors["int4"][ids]) & 15, p >> 4], 2).flatten(1)
    return q * tensors["scale"][ids, None] + tensors["bias"][ids, None]


def pooled(rows: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    """A list field's rows to one each, (B, D); an empty list gives zeros."""
    total = torch.zeros(len(lengths), rows.shape[1]).index_add_(0, torch.arange(len(lengths)).repeat_interleave(lengths), rows)
    return total / lengths.clamp(min=1)[:, None] if pooling == "mean" else total


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file: the header's length, 8 bytes; the header, JSON; the numbers."""
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    start = 8 + int.from_bytes(data[:8], "little")
    types, header = {"F32": torch.float32, "U8": torch.uint8}, json.loads(data[8:start])
    parts = {name: (types[e["dtype"]], e["shape"], start + e["data_offsets"][0]) for name, e in header.items()}
    return {n: torch.frombuffer(data, dtype=t, count=math.prod(shape), offset=o).view(shape) for n, (t, shape, o) in parts.items()}
