"""What an online study compares, and on which logs."""

import dataclasses
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.config.train import TrainConfig
from sml_dist.models.zoo import ModelConfig
from sml_dist.nn.sml import SMLConfig
from sml_dist.spec import spec
from sml_dist.studies.here import refuse_elsewhere
from sml_dist.studies.online_verdicts import Arm, Sides

Unit = Annotated[float, Field(gt=0, le=1)]


@spec
class Log:
    """A prepared dataset whose files lie in time order, and how many of its rows a batch size sees, from the first."""

    path: str
    rows: dict[PositiveInt, PositiveInt]


@spec
class Search:
    """Each arm's own: on the first `share` of its rows, at a seed of its own, the least cumulative logloss over all pairs.

    factors: on both learning rates. init_std: the embedding start.
    """

    factors: tuple[PositiveFloat, ...] = (0.3, 1.0, 3.0, 10.0)
    init_std: tuple[PositiveFloat, ...] = (0.01, 0.1)
    share: Unit = 0.3
    seed: int = 0


@spec
class OnlineConfig:
    """Every normaliser under both heads on every log at every batch size, each arm with the best of its own search.

    normalisers: by a name for the page; their `skip` gives way to the head.
    sml: the normaliser that makes SML with the Skip Logit. plain: the one that makes the plain model with the last layer.
    margin: a difference in logloss or AUC that is a tie however sure it is.
    """

    logs: dict[str, Log]
    normalisers: dict[str, SMLConfig]
    model: ModelConfig
    embedding: EmbeddingConfig = dataclasses.field(default_factory=EmbeddingConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    search: Search = dataclasses.field(default_factory=Search)
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3, 4, 5)
    sml: str = "mtn"
    plain: str = "none"
    windows: PositiveInt = 20
    margin: NonNegativeFloat = 1e-4
    cpus: PositiveFloat = 1.0  # of Ray's, for each pass

    def __post_init__(self):
        refuse_elsewhere(self.train)
        if unknown := {self.sml, self.plain} - self.normalisers.keys():
            raise ValueError(f"sml or plain names {', '.join(sorted(unknown))}; normalisers has {', '.join(self.normalisers)}")
        if "sml" not in vars(self.model):
            raise ValueError(f"model {self.model.name} has no layer to normalise or to skip; take another of the zoo")
        if self.train.schedule != "constant":
            raise ValueError("train.schedule must be constant: a log that goes on has no last step")
        if self.search.seed in self.seeds:
            raise ValueError(f"search.seed {self.search.seed} is one of seeds: what is chosen on it would look too good")

    @property
    def sides(self) -> Sides:
        return Sides(Arm(self.sml, "skip"), Arm(self.plain, "last"))
