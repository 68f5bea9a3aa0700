"""`embedding`: the tables, their optimiser, and where they live."""

from dataclasses import field
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from sml_dist.spec import spec

Sharding = Literal["auto", "table_wise", "row_wise", "column_wise", "table_row_wise", "data_parallel"]


@spec
class TableConfig:
    """What one field's table does otherwise than the rest."""

    sharding: Sharding


@spec
class EmbeddingConfig:
    """`auto` keeps tables of at most `data_parallel_rows` rows on every worker, where there are several, and lets TorchRec's
    planner place the others.

    `l2` is coupled weight decay: a data_parallel table decays all its rows each step, a sharded one the rows looked up.
    """

    dim: PositiveInt = 16
    optimizer: Literal["sgd", "adagrad", "rowwise_adagrad", "adam"] = "rowwise_adagrad"
    lr: PositiveFloat = 0.02
    l2: NonNegativeFloat = 0.0
    eps: PositiveFloat = 1e-8
    init_std: NonNegativeFloat = 0.01
    pooling: Literal["mean", "sum"] = "mean"
    sharding: Sharding = "auto"
    data_parallel_rows: NonNegativeInt | None = None  # None: 10,000, and none between CPUs without l2 and Adam
    tables: dict[str, TableConfig] = field(default_factory=dict)
