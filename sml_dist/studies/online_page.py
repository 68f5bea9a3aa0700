"""The online study's page: in which setting SML is the right choice, by a stated rule, and what was run."""

from collections.abc import Sequence

from sml_dist.studies.online_config import OnlineConfig
from sml_dist.studies.online_plots import LINEAR
from sml_dist.studies.online_verdicts import HEADS, Arm, Curves, Pair, Setting, answer
from sml_dist.tabular import Row, markdown_table

MARKS = {"wins": "+", "ties": "=", "loses": "-"}
WORD = {"logloss": "cumulative logloss", "auc": "cumulative AUC"}


def page(config: OnlineConfig, curves: Curves, pairs: Sequence[Pair], chosen: Sequence[Row]) -> str:
    sml, plain = config.sides
    settings = list(dict.fromkeys(setting for setting, _ in curves))
    pictures = "\n\n".join(f"![{name}](curves-{name}.png)" for name in config.logs)
    return f"""# Online

Logs in time order, one pass; each batch is predicted by the model as it is, then trained on. SML is `{sml}` (normaliser, head), the plain
model `{plain}`. A setting is a log and a batch size: the number of rows the model waits for before it learns from them.

## Is SML the right choice?

{summary(config, pairs, settings)}

The rule: SML wins over another arm where the 95 % t interval of the paired difference lies above {config.margin:g}, loses where it lies
below -{config.margin:g}, else ties; it is the right choice where it loses to none and wins over the plain model. An arm that
cannot get through the log loses to one that can. A tie says that these seeds show no difference, not that there is
none. By cumulative logloss, over {len(config.seeds)} seeds:

{markdown_table([answer(config.sides, pairs, setting, "logloss") for setting in settings])}
By cumulative AUC:

{markdown_table([answer(config.sides, pairs, setting, "auc") for setting in settings])}
## SML against each other arm

Difference from the other arm in cumulative logloss, positive where SML is better (lower); `+` wins, `-` loses, `=` ties:

{against(config, pairs, settings, "logloss")}
In cumulative AUC, positive where SML is better (higher):

{against(config, pairs, settings, "auc")}
![differences](differences.png)

## The Skip Logit against the last layer, under each normaliser

Difference in cumulative logloss, positive where the Skip Logit is better:

{skips(config, pairs, settings, "logloss")}
## Every arm

{means(curves, settings, "logloss")}
{means(curves, settings, "auc")}
{pictures}

Above: cumulative and windowed metrics, mean over seeds, as differences from the plain model, each positive where better;
linear to {LINEAR:g}, logarithmic beyond. The first of the {config.windows} windows is left out. `curves.csv` has all of them with
their own values.

## What was run

{sizes(curves, settings)}
- Each arm has the best of its own search: learning rates times {", ".join(f"{x:g}" for x in config.search.factors)} (base: dense part
  {config.train.lr:g}, tables {config.embedding.lr:g}) by embedding start {", ".join(f"{x:g}" for x in config.search.init_std)}, chosen
  by cumulative logloss on the first {config.search.share:.0%} of its rows at seed {config.search.seed}, which is none of those compared.
  {edges(config, chosen)}
  Chosen:

{choices(chosen, settings)}
- A prediction is made in evaluation mode, so batch norm uses its running statistics. In a batch of one row it has no variance
  to divide by and cannot train; nothing was put in its place.
- Normalisers stand where the configuration says, here by default in the tower before each activation, for MTN and the others alike.
- A step is the trainer's of `sml-dist train`, in one process.

## What this does not show

Seeds vary the start alone: intervals say how sure the difference is on these rows, not on other logs. Each setting has
{len(config.normalisers) * len(HEADS) - 1} comparisons with SML; of verdicts against arms that are truly equal up to 1 in 20 is
wrong, and the error of choosing the rates is in none. Batch sizes that see different rows do not compare.
Vocabularies were fitted on the whole training split: which values occur often enough for a row of their own was known from the
start, their labels were not.
"""


def summary(config: OnlineConfig, pairs: Sequence[Pair], settings: Sequence[Setting]) -> str:
    found: dict[str, list[str]] = {"yes": [], "undecided": [], "no": []}
    for setting in settings:
        found[answer(config.sides, pairs, setting, "logloss")["right choice"]].append(f"{setting.log} at {setting.size:,}")
    words = {"yes": "Yes", "undecided": "Undecided, it loses to no arm but does not win over the plain model either", "no": "No"}
    return "\n".join(f"- {words[key]}: {', '.join(names) or 'nowhere'}." for key, names in found.items())


def against(config: OnlineConfig, pairs: Sequence[Pair], settings: Sequence[Setting], metric: str) -> str:
    mine = [pair for pair in pairs if pair.treatment == config.sides.sml]
    return matrix("SML against", {(pair.control, pair.setting): pair for pair in mine if pair.metric == metric}, settings)


def skips(config: OnlineConfig, pairs: Sequence[Pair], settings: Sequence[Setting], metric: str) -> str:
    mine = [pair for pair in pairs if pair.metric == metric and pair.control == Arm(pair.treatment.normaliser, "last")]
    order = list(config.normalisers)
    mine.sort(key=lambda pair: order.index(pair.treatment.normaliser))
    return matrix("normaliser", {(pair.treatment.normaliser, pair.setting): pair for pair in mine}, settings)


def matrix(corner: str, found: dict, settings: Sequence[Setting]) -> str:
    """A line for each first part of the keys, a column a setting, and how many settings are won, tied and lost."""
    rows = []
    for name in dict.fromkeys(name for name, _ in found):
        line = [found[name, setting] for setting in settings]
        count = ", ".join(str(sum(pair.verdict == kind for pair in line)) for kind in MARKS)
        rows.append({corner: str(name), "+, =, -": count} | {str(pair.setting): cell(pair) for pair in line})
    return markdown_table(rows)


def cell(pair: Pair) -> str:
    return f"{MARKS[pair.verdict]} {'(cannot)' if pair.difference is None else f'{pair.difference.mean:+.5f}'}"


def means(curves: Curves, settings: Sequence[Setting], metric: str) -> str:
    rows = []
    for arm in dict.fromkeys(arm for _, arm in curves):
        rows.append({WORD[metric]: str(arm)} | {str(setting): mean(curves[setting, arm], metric) for setting in settings})
    return markdown_table(rows)


def mean(results: Sequence[dict], metric: str) -> str:
    values = [result["curve"][-1][metric] for result in results if "curve" in result]
    stuck = len(results) - len(values)
    return "cannot" if not values else f"{sum(values) / len(values):.5f}" + (f" ({stuck} cannot)" if stuck else "")


def sizes(curves: Curves, settings: Sequence[Setting]) -> str:
    rows = []
    for setting in settings:
        seen = next((r["curve"][-1]["rows"] for (where, _), side in curves.items() if where == setting for r in side if "curve" in r), 0)
        rows.append({"log": setting.log, "batch size": setting.size, "rows seen": seen, "steps": -(-seen // setting.size)})
    faults = {f"{s}, {a}: {r['fault']}" for (s, a), side in curves.items() for r in side if "fault" in r}
    return markdown_table(rows) + ("\nCannot: " + "; ".join(sorted(faults)) + ".\n" if faults else "")


def edges(config: OnlineConfig, chosen: Sequence[Row]) -> str:
    ends = {min(config.search.factors), max(config.search.factors)}
    count = sum(row["factor"] in ends for row in chosen)
    return f"Of {len(chosen)} choices {count} lie at an end of the rates: a wider search might help those."


def choices(chosen: Sequence[Row], settings: Sequence[Setting]) -> str:
    """Each arm's rate factor and embedding start, by setting."""
    found = {(row["log"], row["size"], row["normaliser"], row["head"]): f"x{row['factor']:g}, {row['init_std']:g}" for row in chosen}
    arms = dict.fromkeys((row["normaliser"], row["head"]) for row in chosen)
    return markdown_table([{"arm": ", ".join(arm)} | {str(s): found[(*s, *arm)] for s in settings} for arm in arms])
