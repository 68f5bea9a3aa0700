"""Workers know how many of them share a node: rows split within a node, tables spread over the nodes."""

import numpy as np
import pytest

from sml_dist.config.run import RunConfig, parse
from tests.train.ranks import make_trainer, on_ranks, trained


@pytest.fixture(scope="module")
def config(synthetic) -> RunConfig:
    path = synthetic(2_000, fields=5, dense=3, table_rows=400)
    return parse(
        {
            "run": {"name": "t"},
            "data": {"path": path, "streams": 12},
            "model": {"name": "dcn_v2", "cross_layers": 2, "tower": {"hidden": [16, 8]}},
            "embedding": {"dim": 8, "lr": 0.05, "init_std": 0.1, "sharding": "table_row_wise", "data_parallel_rows": 0},
            "train": {"global_batch_size": 96, "precision": "fp32", "epochs": 5},
        }
    )


def ranks_of_tables(config: RunConfig, nodes: tuple[int, ...]) -> list[list[int]]:
    trainer, _ = make_trainer(config, nodes)
    return [placed.ranks for module in trainer.model.plan.plan.values() for placed in module.values()]


def test_a_table_row_wise_table_lies_on_one_node_and_the_nodes_share_the_tables(config):
    for ranks in on_ranks(4, ranks_of_tables, config, (2, 2)):
        assert {tuple(sorted(each)) for each in ranks} == {(0, 1), (2, 3)}


@pytest.mark.parametrize("nodes", [(2, 2), (2, 1)])
def test_training_over_even_and_uneven_nodes_is_training_on_one(config, nodes):
    one = on_ranks(1, trained, config, 3)[0]
    found = on_ranks(sum(nodes), trained, config, 3, nodes)[0]
    for name, value in one.items():
        np.testing.assert_allclose(found[name], value, atol=2e-6, err_msg=name)
