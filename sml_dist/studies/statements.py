"""The three statements of arXiv:2210.10725's property analysis, as rules on the depth study's numbers."""

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, PositiveInt

from sml_dist.spec import spec
from sml_dist.tabular import Row

Share = Annotated[float, Field(ge=0, le=1)]


@spec
class Rules:
    """Which variants the statements are about, and from where on a number counts as gone, together, apart, alive.

    plain, sml: names of variants; every variant in `sml` gets a verdict of its own on (b) and (c).
    controls: variants without SML that get one as well, beside `plain`: what they show too is not SML's doing.
    gone: a layer's fresh term variance over the first layer's, at layer `gone_at`.
    together, apart: a mean cosine of rows at least, at most. alive: the largest share of dead units in any layer.
    """

    plain: str = "plain"
    sml: tuple[str, ...]
    controls: tuple[str, ...] = ()
    gone_at: PositiveInt = 5
    gone: Share = 0.05
    together: Share = 0.99
    apart_at: PositiveInt = 15
    apart: Share = 0.9
    alive_at: PositiveInt = 100
    alive: Share = 0.1

    @property
    def variants(self) -> tuple[str, ...]:
        return (self.plain, *self.controls, *self.sml)


def judge(rules: Rules, layers: Sequence[Row], models: Sequence[Row]) -> list[Row]:
    """A row for each statement, variant and moment whose numbers are there: the rule, its number, and whether it is seen.

    A rule of depth n looks at the tower of n layers, or where the moment has none of n at the next deeper one, or else at its deepest.
    """
    rows = []
    for variant in rules.variants:
        for moment in ("start", "trained"):
            part = [row for row in layers if (row["variant"], row["moment"]) == (variant, moment)]
            whole = [row for row in models if (row["variant"], row["moment"]) == (variant, moment)]
            if part:
                found = (fades(rules, part) if variant == rules.plain else []) + stays(rules, part, whole)
                rows += [{"variant": variant, "moment": moment} | row for row in found]
    return sorted(rows, key=lambda row: row["statement"])


def fades(rules: Rules, layers: Sequence[Row]) -> list[Row]:
    """(a), on the layers of one variant at one moment."""
    tower, deepest = _tower(layers, rules.gone_at), _tower(layers, max(row["depth"] for row in layers))
    first = tower[1]["fresh term variance"]
    share = _at(tower, rules.gone_at)["fresh term variance"] / first if first else math.nan  # a layer whose units are all dead has none
    cosine = deepest[-1]["cosine"]
    return [
        _row("a: logit variance gone", f"layer {rules.gone_at}'s over layer 1's <= {rules.gone}", tower, share, share <= rules.gone),
        _row("a: rows become alike", f"last layer's cosine >= {rules.together}", deepest, cosine, cosine >= rules.together),
    ]


def stays(rules: Rules, layers: Sequence[Row], models: Sequence[Row]) -> list[Row]:
    """(b) and (c)."""
    tower, deep = _tower(layers, rules.apart_at), _tower(layers, rules.alive_at)
    layer, dead = _at(tower, rules.apart_at), max(row["dead units"] for row in deep)
    inside = layer["cosine"]
    head = next(row["cosine of the head's input"] for row in models if row["depth"] == tower[0]["depth"])
    rule = f"layer {layer['layer']}'s cosine <= {rules.apart}"
    return [
        _row("b: rows stay apart in the layers", rule, tower, inside, inside <= rules.apart),
        _row("b: rows stay apart at the head", f"cosine of the head's input <= {rules.apart}", tower, head, head <= rules.apart),
        _row("c: units stay alive", f"dead in the worst layer <= {rules.alive}", deep, dead, dead <= rules.alive),
    ]


def _row(statement: str, rule: str, tower: Sequence[Row], number: float, seen: bool) -> Row:
    return {"statement": statement, "depth": tower[0]["depth"], "rule": rule, "number": number, "seen": "seen" if seen else "not seen"}


def _tower(layers: Sequence[Row], depth: int) -> list[Row]:
    """The layers 0.. of the tower of this depth, or else of the next deeper one, or else of the deepest."""
    depths = sorted({row["depth"] for row in layers})
    chosen = next((d for d in depths if d >= depth), depths[-1])
    return [row for row in layers if row["depth"] == chosen]


def _at(tower: Sequence[Row], layer: int) -> Row:
    return tower[min(layer, len(tower) - 1)]
