"""The plan of a run's training rows."""

from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import Manifest, row_groups
from sml_dist.data.plan import Plan


def training_plan(manifest: Manifest, config: RunConfig) -> Plan:
    groups = tuple(rows for _, _, rows in row_groups(manifest.splits["train"]))
    train = config.train
    return Plan(groups, config.data.streams, train.global_batch_size, manifest.row_group_rows, train.seed, config.data.shuffle)
