"""SML's options, and the two places where they change a network: the head, and the tower's hidden layers."""

from collections.abc import Sequence
from dataclasses import field

from torch import nn

from sml_dist.nn.mtn import MetaTanhNorm, MTNConfig
from sml_dist.nn.skip_logit import LastLogit, SkipLogit
from sml_dist.spec import spec


@spec
class SMLConfig:
    """Skip Meta Logit (arXiv:2210.10725). Not enabled: the plain published model, whatever the other options say.

    `skip`: a Skip Logit over every layer, else the last layer alone. `mtn`: see MTNConfig; on skip paths it needs `skip`.
    """

    enabled: bool = True
    skip: bool = True
    mtn: MTNConfig = field(default_factory=MTNConfig)


def logit_head(widths: Sequence[int], sml: SMLConfig, *, bias: bool = True) -> SkipLogit | LastLogit:
    """The head over a block whose layers have these widths. A model that sums heads gives one of them a bias."""
    if not (sml.enabled and sml.skip):
        return LastLogit(widths, bias=bias)
    return SkipLogit(widths, bias=bias, mtn=sml.mtn if sml.mtn.placement in ("skip", "both") else None)


def hidden_norms(width: int, sml: SMLConfig) -> tuple[nn.Module, nn.Module]:
    """What SML puts before and after a hidden layer's activation."""
    if not (sml.enabled and sml.mtn.placement in ("hidden", "both")):
        return nn.Identity(), nn.Identity()
    mtn = MetaTanhNorm(width, sml.mtn)
    return (mtn, nn.Identity()) if sml.mtn.before_activation else (nn.Identity(), mtn)
