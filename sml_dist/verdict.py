"""What a sweep found, and of pairs how sure one can be: the same words and numbers for its README.md and its report.html."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sml_dist.config.metrics import METRICS
from sml_dist.spec import json_safe
from sml_dist.statistics import CONFIDENCE, Paired, holm, paired
from sml_dist.tabular import Row
from sml_dist.train.run_folder import RunFolder
from sml_dist.trials import Record, Sweep

TARGET = 1e-4  # a difference that one wants to be able to see


def verdict(sweep: Sweep) -> str:
    """The best trial, and by how much it is better than the default; some trial must have a value."""
    best, default, metric = sweep.ranked[0], sweep.default, METRICS[sweep.config.metric]
    text = f"Best: trial {best.id} with {metric.short} {best.value:.5f}: {way_to(best)}."
    if default is None:
        return f"{text} No trial with the base's own settings has a value{why_no_default(sweep)}: there is no default to compare it with."
    if best is default:
        return f"{text} It is the default, the base itself: no trial was better."
    early = "" if default.status == "finished" else f", {default.status} after {default.rows:,} rows"
    text += f" The default (trial {default.id}{early}) has {default.value:.5f}: the best is better by {sweep.gain:.5f}"
    about = RunFolder(sweep.path / best.run).read_json("about.json")
    command, rows = f"sml-dist evaluate {best.run} --against {default.run}", "the same test rows"
    if not (about and about["dataset"]["rows"].get("test")):  # evaluate would take the validation rows, which chose the best
        command, rows = f"{command} --data ROWS", "rows that chose neither: give them, for the dataset has no test rows"
    luck = f"The best of {len(sweep.ranked)} is partly luck"
    return f"{text}. {luck}: `{command}` in the sweep's folder says how sure the difference is, on {rows}."


def why_no_default(sweep: Sweep) -> str:
    """In brackets: what became of the trial that began as the default, or how one has such a trial."""
    points = sweep.config.points
    if {} not in points:
        return " (points: [{}] adds one)"
    tried = [trial for trial in sweep.trials if trial.point == points.index({}) and (trial.exploits or sweep.is_base(trial))]
    became = (f"trial {trial.id}: {'took over the settings of another' if trial.exploits else trial.status}" for trial in tried)
    return f" ({', '.join(became)})" if tried else ""


def way_to(best: Record) -> str:
    """How one has what a trial came to; in words that also hold before the sweep has ended."""
    file = "`best.yaml`, written when the sweep ends,"
    if best.exploits:
        return f"its settings changed as it went, so its checkpoint in {best.run} is the result; {file} has the last ones alone"
    return f"{file} trains it"


def about_settings(sweep: Sweep) -> str:
    """What stands over a table of trials, if settings changed as trials went."""
    return " Settings are a trial's last ones; some trials took theirs over from others." if sweep.exploited else ""


@dataclass(frozen=True)
class Contrast:
    """One value of the paired key minus the control: of each draw that finished with both, the two trials."""

    value: Any
    control: Any
    pairs: list[tuple[Record, Record]]

    def __str__(self) -> str:
        return f"{self.value} minus {self.control}"

    @property
    def differences(self) -> dict[int, float]:
        """By draw."""
        return {trial.pair: trial.value - control.value for trial, control in self.pairs}

    @cached_property
    def result(self) -> Paired:
        return paired(list(self.differences.values()), TARGET)


def contrasts(sweep: Sweep) -> list[Contrast]:
    """For each value of `pair` but the control, draw by draw, at the same settings of everything else."""
    key = sweep.config.pair
    finished = [trial for trial in sweep.trials if trial.status == "finished" and trial.value is not None]
    if not key or not finished:
        return []
    of = {(trial.pair, str(trial.params[key])): trial for trial in finished}
    dimension = sweep.config.space[key]
    values = dimension.choice or dimension.grid or sorted({trial.params[key] for trial in finished})
    control = sweep.config.control(values, sweep.base_value(key))
    found = []
    for value in (value for value in values if value != control):
        draws = sorted(draw for draw, each in of if each == str(value) and (draw, str(control)) in of)
        if draws:
            found.append(Contrast(value, control, [(of[draw, str(value)], of[draw, str(control)]) for draw in draws]))
    return found


def contrast_rows(found: list[Contrast]) -> list[Row]:
    """The table of all contrasts."""
    sure, rows = f"({CONFIDENCE:.0%})", []
    for contrast, adjusted in zip(found, holm([contrast.result.p for contrast in found]), strict=True):
        p = contrast.result
        row = {"difference": str(contrast), "pairs": p.seeds, "mean": p.mean, f"low {sure}": p.t_low, f"high {sure}": p.t_high}
        rows.append(json_safe(row | {"pairs above 0": p.wins, "p": p.p, "p (Holm)": adjusted}))
    return rows


def about_contrasts(sweep: Sweep) -> str:
    """What stands over that table."""
    metric = METRICS[sweep.config.metric]
    return (
        f"{sweep.config.pair}: the same draw of everything else, trained to the end with each value; differences of the validation "
        f"{metric.short} ({'higher' if metric.sign > 0 else 'lower'} is better), Student's t intervals, "
        "each by itself; p (Holm) allows for the number of comparisons."
    )
