"""Adds to MovieLens, joined to one table, the films that a user had liked before: python add_seen.py FROM.parquet TO.parquet

`seen` lists those rated 4 or 5 at an earlier second, the newest last; rows are sorted by user and time.
"""

import sys
from bisect import bisect_left

import pyarrow as pa
import pyarrow.parquet as pq

NEWEST = 20

log = pq.read_table(sys.argv[1]).sort_by([("user", "ascending"), ("ts", "ascending")])
liked: dict[int, tuple[list[int], list[int]]] = {}  # user -> times, films
seen = []
for row in log.select(["user", "movie", "ts", "rating"]).to_pylist():
    times, films = liked.setdefault(row["user"], ([], []))
    seen.append(films[: bisect_left(times, row["ts"])][-NEWEST:])
    if row["rating"] >= 4:
        times.append(row["ts"])
        films.append(row["movie"])
pq.write_table(log.append_column("seen", pa.array(seen, pa.list_(pa.int64()))), sys.argv[2])
