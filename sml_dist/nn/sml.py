"""SML's options, and the two places where they change a network: the head, and the tower's hidden layers."""

from collections.abc import Sequence
from dataclasses import field
from functools import partial
from typing import Literal

from torch import nn

from sml_dist.nn.deep_supervision import DeepSupervision
from sml_dist.nn.mtn import MetaTanhNorm, MTNConfig
from sml_dist.nn.norms import NORMS
from sml_dist.nn.skip_logit import LastLogit, SkipLogit
from sml_dist.spec import spec


@spec
class SMLConfig:
    """Skip Meta Logit (arXiv:2210.10725), and what an ablation puts in its parts' places. Not enabled: the plain published
    model, whatever the other options say.

    skip: a Skip Logit over every layer, else the last layer alone.
    norm: what stands where `mtn.placement` and `mtn.before_activation` say: MTN, or in its place another normaliser of
        norms.py; with another one the rest of `mtn` says nothing. `tower.norm` is apart from it and comes first. On a skip
        path a tanh is taken of the layer before its dropout, the others of what dropout has left.
    mtn: see MTNConfig; on skip paths it needs `skip`.
    deep_supervision: every layer before the last has a logit of its own in training, with either head; see DeepSupervision.
    """

    enabled: bool = True
    skip: bool = True
    norm: Literal["mtn", "batch", "layer", "layer_variance", "fixed_tanh", "dyt"] = "mtn"
    mtn: MTNConfig = field(default_factory=MTNConfig)
    deep_supervision: bool = False


def normaliser(width: int, sml: SMLConfig) -> nn.Module:
    return MetaTanhNorm(width, sml.mtn) if sml.norm == "mtn" else NORMS[sml.norm](width)


def logit_head(widths: Sequence[int], sml: SMLConfig, *, bias: bool = True) -> nn.Module:
    """The head over a block whose layers have these widths. A model that sums heads gives one of them a bias."""
    if not sml.enabled:
        return LastLogit(widths, bias=bias)
    if sml.skip:
        norm = partial(normaliser, sml=sml) if sml.mtn.placement in ("skip", "both") else nn.Identity
        head: nn.Module = SkipLogit(widths, bias=bias, norm=norm)
    else:
        head = LastLogit(widths, bias=bias)
    return DeepSupervision(head, widths) if sml.deep_supervision else head


def hidden_norms(width: int, sml: SMLConfig) -> tuple[nn.Module, nn.Module]:
    """What SML puts before and after a hidden layer's activation."""
    if not (sml.enabled and sml.mtn.placement in ("hidden", "both")):
        return nn.Identity(), nn.Identity()
    norm = normaliser(width, sml)
    return (norm, nn.Identity()) if sml.mtn.before_activation else (nn.Identity(), norm)
