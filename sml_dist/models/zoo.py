"""The registry: every model by name. To add one, write its file and add a line here."""

from typing import Annotated, Any, NamedTuple, Union

from pydantic import Field
from torch import nn

from sml_dist.models.dcn_v2 import DCNv2, DCNv2Config
from sml_dist.models.dnn import DNN, DNNConfig
from sml_dist.models.fields import FieldShape


class ZooEntry(NamedTuple):
    config: type
    model: type[nn.Module]


ZOO: dict[str, ZooEntry] = {
    "dnn": ZooEntry(DNNConfig, DNN),
    "dcn_v2": ZooEntry(DCNv2Config, DCNv2),
}

# The type of a run's `model` section: `name` says which config it is.
ModelConfig = Annotated[Union[tuple(entry.config for entry in ZOO.values())], Field(discriminator="name")]  # noqa: UP007


def build(config: Any, shape: FieldShape) -> nn.Module:
    """The model of a config of the zoo, for input of this shape."""
    return ZOO[config.name].model(config, shape)
