"""Who wins an online setting: differences paired by seed, and the rule that makes a verdict of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from sml_dist.config.metrics import METRICS
from sml_dist.statistics import Paired, paired
from sml_dist.tabular import Row

HEADS = ("last", "skip")
JUDGED = ("logloss", "auc")  # the metrics by which arms are compared


class Setting(NamedTuple):
    """A log and a batch size."""

    log: str
    size: int

    def __str__(self) -> str:
        return f"{self.log}, {self.size}"


class Arm(NamedTuple):
    """A normaliser in the tower, under the last layer's head or the Skip Logit."""

    normaliser: str
    head: str

    def __str__(self) -> str:
        return f"{self.normaliser}, {self.head}"


class Sides(NamedTuple):
    sml: Arm
    plain: Arm


Curves = dict[tuple[Setting, Arm], list[dict[str, Any]]]  # a result for each seed: {"curve"} or {"fault"}


@dataclass(frozen=True)
class Pair:
    """`treatment` against `control` at the end of the pass; differences are positive where the treatment is better."""

    setting: Setting
    treatment: Arm
    control: Arm
    metric: str
    verdict: str  # wins | ties | loses, said of the treatment
    difference: Paired | None  # None where one of them does not get through the log

    def row(self) -> Row:
        numbers = asdict(self.difference or paired([float("nan")], 1.0))
        arms = {"treatment": str(self.treatment), "control": str(self.control)}
        return {**self.setting._asdict(), **arms, "metric": self.metric, "verdict": self.verdict, **numbers}


def compare(sides: Sides, curves: Curves, margin: float) -> list[Pair]:
    """In every setting and metric: SML against each other arm, and each normaliser's Skip Logit against its last layer."""
    found = []
    for setting in dict.fromkeys(setting for setting, _ in curves):
        arms = [arm for where, arm in curves if where == setting]
        asked = [(sides.sml, arm) for arm in arms if arm != sides.sml]
        asked += [(arm, Arm(arm.normaliser, "last")) for arm in arms if arm.head == "skip" and arm.normaliser != sides.sml.normaliser]
        for metric in JUDGED:
            found += [judged(setting, *pair, metric, curves, margin) for pair in asked]
    return found


def judged(setting: Setting, treatment: Arm, control: Arm, metric: str, curves: Curves, margin: float) -> Pair:
    left, right = curves[setting, treatment], curves[setting, control]
    stuck = [any("fault" in result for result in side) for side in (left, right)]
    if any(stuck):
        return Pair(setting, treatment, control, metric, "ties" if all(stuck) else "loses" if stuck[0] else "wins", None)
    sign = METRICS[metric].sign
    found = paired([sign * (a["curve"][-1][metric] - b["curve"][-1][metric]) for a, b in zip(left, right, strict=True)], margin or 1e-4)
    return Pair(setting, treatment, control, metric, verdict(found, margin), found)


def verdict(difference: Paired, margin: float) -> str:
    """`wins` where the whole 95 % interval lies above `margin`, `loses` where it lies below -`margin`; with one seed always `ties`."""
    return "wins" if difference.t_low > margin else "loses" if difference.t_high < -margin else "ties"


def answer(sides: Sides, pairs: Sequence[Pair], setting: Setting, metric: str) -> Row:
    """Whether SML is the right choice in a setting: it loses to no arm and wins over the plain model."""
    mine = [pair for pair in pairs if (pair.setting, pair.metric, pair.treatment) == (setting, metric, sides.sml)]
    count = {kind: [pair.control for pair in mine if pair.verdict == kind] for kind in ("wins", "ties", "loses")}
    right = "no" if count["loses"] else "yes" if sides.plain in count["wins"] else "undecided"
    lost = "; ".join(map(str, count["loses"]))
    return {"setting": str(setting), **{kind: len(arms) for kind, arms in count.items()}, "right choice": right, "loses to": lost}
