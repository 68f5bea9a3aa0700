"""The registry: every model by name. To add one, write its file and add a line here."""

from typing import Annotated, Any, NamedTuple, Union

from pydantic import Field
from torch import nn

from sml_dist.models.autoint import AutoInt, AutoIntConfig
from sml_dist.models.dcn import DCN, DCNConfig
from sml_dist.models.dcn_v2 import DCNv2, DCNv2Config
from sml_dist.models.deepfm import DeepFM, DeepFMConfig
from sml_dist.models.din import DIN, DINConfig
from sml_dist.models.dlrm import DLRM, DLRMConfig
from sml_dist.models.dnn import DNN, DNNConfig
from sml_dist.models.fibinet import FiBiNET, FiBiNETConfig
from sml_dist.models.fields import FieldShape
from sml_dist.models.finalmlp import FinalMLP, FinalMLPConfig
from sml_dist.models.finalnet import FinalNet, FinalNetConfig
from sml_dist.models.fm import FM, FMConfig
from sml_dist.models.gdcn import GDCN, GDCNConfig
from sml_dist.models.ipnn import IPNN, IPNNConfig
from sml_dist.models.lr import LR, LRConfig
from sml_dist.models.masknet import MaskNet, MaskNetConfig
from sml_dist.models.mmoe import MMoE, MMoEConfig
from sml_dist.models.rankmixer import RankMixer, RankMixerConfig
from sml_dist.models.wide_deep import WideDeep, WideDeepConfig
from sml_dist.models.wukong import Wukong, WukongConfig
from sml_dist.models.xdeepfm import XDeepFM, XDeepFMConfig
from sml_dist.spec import InputError


class ZooEntry(NamedTuple):
    config: type
    model: type[nn.Module]
    multitask: bool = False  # predicts several labels, not one


ZOO: dict[str, ZooEntry] = {
    "lr": ZooEntry(LRConfig, LR),
    "fm": ZooEntry(FMConfig, FM),
    "dnn": ZooEntry(DNNConfig, DNN),
    "wide_deep": ZooEntry(WideDeepConfig, WideDeep),
    "deepfm": ZooEntry(DeepFMConfig, DeepFM),
    "ipnn": ZooEntry(IPNNConfig, IPNN),
    "dcn": ZooEntry(DCNConfig, DCN),
    "dcn_v2": ZooEntry(DCNv2Config, DCNv2),
    "xdeepfm": ZooEntry(XDeepFMConfig, XDeepFM),
    "autoint": ZooEntry(AutoIntConfig, AutoInt),
    "fibinet": ZooEntry(FiBiNETConfig, FiBiNET),
    "dlrm": ZooEntry(DLRMConfig, DLRM),
    "masknet": ZooEntry(MaskNetConfig, MaskNet),
    "finalmlp": ZooEntry(FinalMLPConfig, FinalMLP),
    "finalnet": ZooEntry(FinalNetConfig, FinalNet),
    "gdcn": ZooEntry(GDCNConfig, GDCN),
    "wukong": ZooEntry(WukongConfig, Wukong),
    "rankmixer": ZooEntry(RankMixerConfig, RankMixer),
    "din": ZooEntry(DINConfig, DIN),
    "mmoe": ZooEntry(MMoEConfig, MMoE, multitask=True),
}

# The type of a run's `model` section: `name` says which config it is.
ModelConfig = Annotated[Union[tuple(entry.config for entry in ZOO.values())], Field(discriminator="name")]  # noqa: UP007


def build(config: Any, shape: FieldShape) -> nn.Module:
    """The model of a config of the zoo, for input of this shape. Raises InputError where they do not go together."""
    entry = ZOO[config.name]
    if entry.multitask != (shape.labels > 1):
        predicts = "several labels" if entry.multitask else "one label"
        others = ", ".join(name for name, other in ZOO.items() if other.multitask != entry.multitask)
        others += "" if entry.multitask else "; or set data.label to the one to predict"
        raise InputError(f"model {config.name} predicts {predicts}, and the data has {shape.labels}; models that fit: {others}")
    return entry.model(config, shape)
