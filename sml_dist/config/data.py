"""`data`: which prepared dataset a run reads, and how."""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from sml_dist.spec import spec


@spec
class DataConfig:
    """`path` is a prepared dataset. `streams` are at least as many as workers; the batch size must be divisible by `streams`."""

    path: str
    streams: PositiveInt = 16
    shuffle: bool = True
    reader_cpus: PositiveFloat = 0.5  # logical CPUs that Ray sets aside for each reader task
    # Nodes that read: any, that of the worker they read for where it has room, or those labelled sml-dist/role=data alone
    readers: Literal["anywhere", "near", "data_nodes"] = "anywhere"
    # Windows (16,384 rows of each of a worker's streams) read ahead, as many at a time as there are CPUs for; None: 2, for a GPU up to 16
    prefetch_windows: PositiveInt | None = None
