"""The depth study's page: the paper's statements beside the numbers."""

from collections.abc import Sequence

from sml_dist.config.train import TrainConfig
from sml_dist.studies.statements import Rules
from sml_dist.tabular import Row, markdown_table


def page(rules: Rules, train: TrainConfig, layers: Sequence[Row], models: Sequence[Row], verdicts: Sequence[Row]) -> str:
    steps = f"{train.max_steps:,} steps" if train.max_steps else f"{train.epochs} epochs"
    last = [row for row in layers if row["layer"] == row["depth"]]
    return f"""# Depth

Towers over embedded fields, trained for {steps} of {train.global_batch_size:,} rows; layers are measured on validation rows, in training
mode, with float64 sums. `layers.csv` has every layer, `models.csv` every model.{diverged(models)}

## The paper's statements

Of arXiv:2210.10725 only the abstract and a third party's summary were at hand, so the statements are that summary's and the rules
are ours. A verdict is that of its rule, on one seed; it says nothing of other widths, data or thresholds.

(a) Without SML (`{rules.plain}`) the logit's variance is gone by depth {rules.gone_at} and the cosine similarity of rows goes to 1.
(b) With it rows stay apart to depth {rules.apart_at}. (c) Units stay alive to depth {rules.alive_at}.
A moment without a tower of that depth is judged by its next deeper one, or else by its deepest. Variants without SML stand beside
the others under (b) and (c) ({", ".join((rules.plain, *rules.controls))}): what they show too is not SML's doing.

{markdown_table(verdicts, ("statement", "variant", "moment", "depth", "rule", "number", "seen"))}
## Models by depth

AUC on the validation rows, trained:

{by_depth(models, "auc", "trained")}
Variance of the logit over rows, at the start:

{by_depth(models, "logit variance", "start")}
and trained:

{by_depth(models, "logit variance", "trained")}
Mean cosine of pairs of rows in what the head reads (under a Skip Logit all normalised layer outputs side by side, else the last
layer), trained:

{by_depth(models, "cosine of the head's input", "trained")}
![models](models.png)

## The last layer by depth

Mean cosine of pairs of rows, at the start:

{by_depth(last, "cosine", "start")}
and trained:

{by_depth(last, "cosine", "trained")}
Share of dead units, those that give every row the same number, at the start:

{by_depth(last, "dead units", "start")}
and trained:

{by_depth(last, "dead units", "trained")}
Effective rank, exp of the entropy of the singular values, trained:

{by_depth(last, "effective rank", "trained")}
## Every layer

`fresh term variance` is what a head's term on a layer would vary by with weights as a head starts them, 2 / (K + 1) times the sum of
the units' variances. It is there for every layer; `term variance`, the terms' own, only where a head has a term. `gradient norm`: of
the mean logistic loss on the measured rows, in the layer's parameters.

![logit variance](variance.png)

![logit terms](terms.png)

![cosine](cosine.png)

![dead units](dead.png)

![effective rank](rank.png)

![gradient](gradient.png)
"""


def by_depth(rows: Sequence[Row], column: str, moment: str) -> str:
    """A line a variant, a column a depth."""
    part = [row for row in rows if row["moment"] == moment]
    depths = sorted({row["depth"] for row in part})
    found = {(row["variant"], row["depth"]): row[column] for row in part}
    variants = dict.fromkeys(row["variant"] for row in part)
    table = [{"variant": name} | {str(depth): found.get((name, depth)) for depth in depths} for name in variants]
    return markdown_table(table) if table else "(none)\n"


def diverged(models: Sequence[Row]) -> str:
    """Which towers have no trained numbers though others of their depth have."""
    trained = {(row["variant"], row["depth"]) for row in models if row["moment"] == "trained"}
    depths, started = {depth for _, depth in trained}, [(row["variant"], row["depth"]) for row in models if row["moment"] == "start"]
    gone = [f"{variant} {depth}" for variant, depth in started if depth in depths and (variant, depth) not in trained]
    return f" Diverged in training: {', '.join(gone)}." if gone else ""
