"""What can be refused of a run before Ray is there."""

from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from sml_dist.config.run import RunConfig
from sml_dist.config.train import TrainConfig
from sml_dist.data.dataset import Manifest, check_table_names, read_manifest
from sml_dist.data.plan import Plan
from sml_dist.data.schema import A_FIELD
from sml_dist.embeddings.shape import field_shape
from sml_dist.models.zoo import build
from sml_dist.spec import InputError, many
from sml_dist.train.metrics import EXACT_ROWS
from sml_dist.train.rows import training_plan

FEW_STEPS = 100


def check(config: RunConfig) -> Plan:
    """The plan of a run that can start; raises InputError that names the key or the dataset."""
    manifest = read_manifest(config.data.path, config.data.label)
    check_splits(config.data.path, manifest)
    if not manifest.features:
        raise InputError(f"{config.data.path} has numeric features alone; in its schema {A_FIELD}, and prepare it again")
    check_table_names([field.name for field in manifest.tables], config.data.path)
    with Undrawn():  # only to hear whether the model takes such data
        build(config.model, field_shape(manifest, config.embedding.dim))
    check_monitor(config, manifest)
    plan = training_plan(manifest, config)
    least, most = config.train.worker_range
    if least > most:
        raise InputError(f"train.num_workers [{least}, {most}]: give the least first, as in [{most}, {least}]")
    plan.share(0, most)
    return plan


def check_splits(path: str, manifest: Manifest) -> None:
    for split in ("train", "valid"):
        if split not in manifest.splits or not manifest.splits[split].rows:
            raise InputError(f"{path} has no {split} rows; prepare it with a split rule that gives it some")


def few_steps(train: TrainConfig, plan: Plan) -> str | None:
    """A warning about a run that will hardly train: small logs under a configuration for large ones."""
    steps = train.most_steps(plan.steps)
    if train.max_steps or steps >= FEW_STEPS:
        return None
    rows = f"{plan.rows:,} rows in batches of {plan.batch_size:,}"
    return f"{many(steps, 'step')} in all ({rows}) may be too few to learn from; lower train.global_batch_size or raise train.epochs"


class Undrawn(TorchFunctionMode):
    """Weights are not drawn, so their memory is allocated but never touched. Meta tensors would need none, but make torch import its
    compiler, for a second."""

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return args[0] if function in (Tensor.normal_, Tensor.uniform_) else function(*args, **(kwargs or {}))


def check_monitor(config: RunConfig, manifest: Manifest) -> None:
    """Whether `train.monitor` is a number on the validation rows."""
    label, _ = config.train.monitored
    named = manifest.labels if len(manifest.labels) > 1 else []  # the one label of a run has no name to monitor it by
    if label and label not in named:
        known = f"labels {', '.join(named)}" if named else "one label; give the metric alone"
        raise InputError(f"train.monitor {config.train.monitor}: the run on {config.data.path} has {known}")
    check_metric("train.monitor", config.train.monitor, config.data.path, manifest, "valid")


def check_metric(key: str, name: str, path: str, manifest: Manifest, split: str) -> None:
    """Whether a metric, as in auc or click.auc, is a number on a split's rows; `key` is what it was given as. Raises InputError."""
    label, _, metric = name.rpartition(".")
    rows, prefix = manifest.splits[split], name.removesuffix(metric)
    if metric != "logloss" and rows.positives_by_label[manifest.labels.index(label) if label else 0] in (0, rows.rows):
        raise InputError(f"{path}: all {split} rows have one label, so their {metric} is undefined; set {key}={prefix}logloss")
    if metric == "gauc" and not manifest.group:
        raise InputError(f"{key} gauc needs a dataset with a group; name one in the schema of {path}, or set {key}={prefix}auc")
    if metric == "gauc" and rows.rows > EXACT_ROWS:
        known = f"{key} {name} is known of up to {EXACT_ROWS:,} {split} rows, and {path} has {rows.rows:,}"
        raise InputError(f"{known}; set {key}={prefix}auc or prepare fewer")
