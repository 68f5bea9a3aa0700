"""Which kinds of sharding a table may have, and what the planner makes of them between CPUs."""

import re
from contextlib import nullcontext
from dataclasses import replace

import pytest
from torchrec.distributed.types import ShardingPlan

from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.data.dataset import Field, Manifest
from sml_dist.embeddings import rowwise_adagrad, sharding
from sml_dist.embeddings.capacity_tables import Tables
from sml_dist.embeddings.cluster import Cluster, links
from sml_dist.embeddings.optim import check_l2
from sml_dist.embeddings.sharding import allowed_kinds, make_plan, placements, plan_text
from sml_dist.spec import InputError

ROWS = {"tiny": 900, "small": 9_000, "large": 2_000_000}
MANIFEST = Manifest(
    name="t", fields=[Field(name=name, rows=rows) for name, rows in ROWS.items()], dense=[], splits={}, split_rule="",
    rows_read=0, rows_kept=0, rows_rejected=0,
)  # fmt: skip


def copied(device="cpu", workers=2, **embedding) -> list[str]:
    kinds = allowed_kinds(MANIFEST, EmbeddingConfig(**embedding), device, workers)
    return [name for name, allowed in kinds.items() if allowed == ["data_parallel"]]


def test_small_tables_are_copied_where_the_copies_cost_less_than_the_exchange():
    assert copied() == [] and copied("cuda") == ["tiny", "small"] and copied(workers=1) == []
    assert (
        copied(data_parallel_rows=0) == []
        and copied(data_parallel_rows=1_000) == ["tiny"]
        and copied(data_parallel_rows=10**7) == list(ROWS)
    )


@pytest.mark.parametrize("embedding", [{"l2": 1e-6}, {"optimizer": "adam", "tables": {"large": {"sharding": "data_parallel"}}}])
def test_what_decay_and_adam_do_to_a_table_is_no_matter_of_device_or_workers(embedding):
    for device in ("cpu", "cuda"):
        for workers in (1, 2):
            assert [name for name in copied(device, workers, **embedding) if name != "large"] == ["tiny", "small"]


@pytest.mark.parametrize(
    ("optimizer", "device", "compiler", "fault"),
    [
        ("sgd", "cuda", True, "under a fused sgd (table large); set embedding.optimizer=rowwise_adagrad or embedding.sharding=data"),
        ("adagrad", "cpu", True, "l2 has no effect under a fused adagrad"),
        ("adam", "cuda", True, "l2 is another decay under a fused adam"),
        ("rowwise_adagrad", "cpu", False, "l2 wants a C++ compiler (g++) under a fused rowwise_adagrad (table large); set embedding.s"),
        ("rowwise_adagrad", "cpu", True, None),
        ("rowwise_adagrad", "cuda", False, None),
    ],
)
def test_l2_is_refused_where_a_fused_optimiser_would_not_do_it(optimizer, device, compiler, fault, monkeypatch):
    monkeypatch.setattr(rowwise_adagrad, "compiled", lambda: compiler)
    config = EmbeddingConfig(optimizer=optimizer, l2=0.1)
    check_l2(config, [], device)
    with pytest.raises(InputError, match=re.escape(fault)) if fault else nullcontext():
        check_l2(config, ["large"], device)


def test_between_cpus_a_table_is_whole_unless_it_is_more_than_a_workers_share():
    """Of a table cut by rows each worker hands every other its part of a sum for all rows of the batch."""
    assert allowed_kinds(MANIFEST, EmbeddingConfig(dim=16), "cpu", 2) == {
        "tiny": ["table_wise"],
        "small": ["table_wise"],
        "large": ["table_wise", "row_wise"],
    }


@pytest.mark.parametrize("workers", [2, 4])
def test_the_planner_is_told_how_slow_the_links_between_cpus_are(workers, monkeypatch):
    """Else it takes them for NVLink and cuts whatever it may."""
    config = EmbeddingConfig(dim=16)
    cluster = Cluster(workers, workers, "cpu", hbm=0, ddr=10**12, **links("cpu"))
    may_be_cut = ["table_wise", "row_wise"]
    kinds = {"tiny": ["data_parallel"], "small": may_be_cut, "large": may_be_cut}
    monkeypatch.setattr(sharding, "allowed_kinds", lambda *given: kinds)
    plan, _ = make_plan(config, Tables(MANIFEST, dict.fromkeys(ROWS, 1.0)), cluster, 512 * workers, fixed=0)
    assert [placed.kind for placed in placements(ShardingPlan({"tables": plan}), MANIFEST, 16)] == [
        "table_wise",
        "table_wise",
        "data_parallel",
    ]


def test_a_plan_calls_tables_by_their_fields_dots_and_all():
    names = ("user.id", "t_b", "c")
    manifest = replace(MANIFEST, fields=[Field(name=name, rows=9) for name in names])
    cluster = Cluster(world_size=1, local_world_size=1, device="cpu", hbm=0, ddr=10**10, **links("cpu"))
    plan, _ = make_plan(EmbeddingConfig(dim=16), Tables(manifest, dict.fromkeys(names, 1.0)), cluster, 512, fixed=0)
    placed = placements(ShardingPlan({"tables": plan}), manifest, 16)
    assert [table.table for table in placed] == ["c", "t_b", "user.id"] and " user.id " in plan_text(placed)
