"""`data`: which prepared dataset a run reads, and how."""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from sml_dist.spec import spec


@spec
class DataConfig:
    """`path`: a prepared dataset. `label`: the one that the run uses of a dataset with several; all of them unless it is given.
    `streams`: at least one for each worker; must divide `train.global_batch_size`."""

    path: str
    label: str | None = None
    streams: PositiveInt = 16
    shuffle: bool = True
    reader_cpus: PositiveFloat = 0.5  # logical CPUs that Ray sets aside for each reader task
    # Where reader tasks run. anywhere: on any node; near: on the node of the worker they read for, if it has room; data_nodes: only on
    # nodes labelled sml-dist/role=data
    readers: Literal["anywhere", "near", "data_nodes"] = "anywhere"
    # Windows read ahead for each worker, a window being 16,384 rows of each of its streams; None: 2, for a GPU up to 16
    prefetch_windows: PositiveInt | None = None
