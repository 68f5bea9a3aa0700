"""Bodies of requests, good ones and broken ones."""

import json
import random
from typing import Any

import pyarrow as pa

from sml_dist.serve.requests import ARROW, JSON

ODD: list[Any] = [None, "", "x", 0, -1, 1e308, 2**70, 0.5, True, [], ["a"], {}, "\u0000", "é|ü", "NaN", "1e5", " 7 ", "9" * 400]


def row_of(row: dict[str, Any]) -> pa.Table:
    return pa.table({name: pa.array([value]) for name, value in row.items()})


def arrow(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def fuzzed(draw: random.Random, row: dict[str, Any]) -> tuple[str, bytes]:
    """(content type, body): odd values and keys in place of right ones, or bytes flipped, cut out and doubled; sometimes left whole."""
    kind = draw.choice([JSON, ARROW])
    rows = [dict(row) for _ in range(draw.choice([1, 1, 2, 7]))]
    for _ in range(draw.choice([0, 1, 2])):
        name = draw.choice([*row, "", "nobody", "click"])
        draw.choice(rows)[name] = draw.choice(ODD)
    if kind == JSON:
        body = json.dumps({"rows": rows, **draw.choice([{}, {}, {"contributions": True}, {"x": 1}])}).encode()
    else:
        body = arrow(pa.concat_tables([row_of(row)] * len(rows)), draw.choice([None, None, None, "zstd"]))
    return draw.choice([kind] * 20 + [ARROW, JSON, "", "text/plain"]), broken(draw, body)


def broken(draw: random.Random, body: bytes) -> bytes:
    found = bytearray(body)
    for _ in range(draw.choice([0, 0, 1, 1, 2, 8])):
        at = draw.randrange(len(found)) if found else 0
        how = draw.randrange(4)
        if how == 0 and found:
            found[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            del found[at : at + draw.choice([1, 4, 64, 10_000])]
        elif how == 2:
            found[at:at] = draw.randbytes(draw.choice([1, 8, 100]))
        else:
            found[at:at] = found[at : at + 16]
    return bytes(found)
