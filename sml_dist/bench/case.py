"""What a case is, and how its arms are read: in turn, so that whatever drifts on a machine drifts for all of them."""

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from sml_dist.bench.workplace import Workplace

Arm = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """`arms` makes the arms: each call of one is a reading, in `unit`.

    `ratios` are of two arms, {name: (over, under)}; those whose arms are not there are left out. `at_least` and `at_most`
    are bounds that this project sets itself, on ratios and on arms. `warm_up`: the first reading of each arm is thrown away.
    `gpu`: wants one.
    """

    name: str
    says: str
    unit: str
    arms: Callable[[Workplace], AbstractContextManager[dict[str, Arm]]]
    ratios: dict[str, tuple[str, str]] = field(default_factory=dict)
    at_least: dict[str, float] = field(default_factory=dict)
    at_most: dict[str, float] = field(default_factory=dict)
    rounds: int = 7
    warm_up: bool = True
    gpu: bool = False


def measure(
    case: Case, place: Workplace, rounds: int | None = None, keep: Callable[[dict[str, Any]], None] = lambda found: None
) -> dict[str, Any]:
    """Reads every arm once a round, every other round in reverse order; the result as plain data, and to `keep` before the
    arms are taken down."""
    readings: dict[str, list[float]] = {}
    with case.arms(place) as arms:
        if case.warm_up:
            for arm in arms.values():
                arm()
        for number in range(rounds or case.rounds):
            for name in list(arms)[:: -1 if number % 2 else 1]:
                readings.setdefault(name, []).append(arms[name]())
        found = result(case, {name: readings[name] for name in arms})
        keep(found)
    return found


def result(case: Case, readings: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and ranges of the arms and of the ratios, a ratio being one of readings of the same round."""
    pairs = {
        name: [a / b for a, b in zip(readings[over], readings[under], strict=True)]
        for name, (over, under) in case.ratios.items()
        if over in readings and under in readings
    }
    return {
        "case": case.name,
        "says": case.says,
        "unit": case.unit,
        "rounds": len(next(iter(readings.values()))),
        "arms": {name: statistics.median(values) for name, values in readings.items()},
        "ratios": {name: statistics.median(values) for name, values in pairs.items()},
        "ranges": {name: [min(values), max(values)] for name, values in (readings | pairs).items()},
        "at_least": {name: least for name, least in case.at_least.items() if name in readings or name in pairs},
        "at_most": {name: most for name, most in case.at_most.items() if name in readings or name in pairs},
    }
