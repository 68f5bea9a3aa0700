"""`embedding`: the tables, their optimiser, and where they live."""

from dataclasses import field
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from sml_dist.spec import spec

Sharding = Literal["auto", "table_wise", "row_wise", "column_wise", "table_row_wise", "data_parallel"]


@spec
class TableConfig:
    """What overrides `embedding` for the table of one field."""

    sharding: Sharding


@spec
class EmbeddingConfig:
    """The embedding tables of all fields; `tables` overrides settings by field name.

    sharding: auto keeps tables of at most `data_parallel_rows` rows on every worker (on a single one only under l2 or Adam),
        and lets TorchRec's planner place the others.
    l2: weight decay, added to the gradient. A data_parallel table decays all its rows each step, a sharded one only those looked up.
    """

    dim: PositiveInt = 16
    optimizer: Literal["sgd", "adagrad", "rowwise_adagrad", "adam"] = "rowwise_adagrad"
    lr: PositiveFloat = 0.02
    l2: NonNegativeFloat = 0.0
    eps: PositiveFloat = 1e-8
    init_std: NonNegativeFloat = 0.01
    pooling: Literal["mean", "sum"] = "mean"
    sharding: Sharding = "auto"
    data_parallel_rows: NonNegativeInt | None = None  # None: 10,000; on CPUs 0, unless l2 or Adam is used
    tables: dict[str, TableConfig] = field(default_factory=dict)
