"""A run's tables are placed for the memory that its workers have."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torchrec.distributed.types import ShardingPlan

from sml_dist.config.run import RunConfig, parse
from sml_dist.data.dataset import Manifest, read_manifest
from sml_dist.embeddings.capacity import solve
from sml_dist.embeddings.capacity_tables import dataset_tables
from sml_dist.embeddings.cluster import Cluster, links
from sml_dist.embeddings.sharding import make_plan
from sml_dist.spec import InputError
from sml_dist.train import keeper, sharded
from sml_dist.train.alone import train_alone
from sml_dist.train.build import make_task
from sml_dist.train.in_process import Laboratory, one_process
from sml_dist.train.place import Place
from sml_dist.train.state import weights
from tests.train.ranks import on_ranks

MB, TB = 10**6, 10**12
LARGE = 200_000  # rows of the first of two tables: 6.4 MB, more than half of both


@pytest.fixture(scope="module")
def config(synthetic) -> RunConfig:
    path = synthetic(200, fields=2, dense=2, table_rows=100)
    return parse(
        {
            "run": {"name": "t"},
            "data": {"path": path, "streams": 4},
            "model": {"name": "dnn", "tower": {"hidden": [8]}},
            "embedding": {"dim": 8},
            "train": {"global_batch_size": 32, "precision": "fp32"},
        }
    )


def manifest_of(config: RunConfig) -> Manifest:
    manifest = read_manifest(config.data.path)
    return replace(manifest, fields=[replace(manifest.fields[0], rows=LARGE), *manifest.fields[1:]])


def planned(config: RunConfig, memory: tuple[int, ...]) -> list | str:
    """Where each table of a run lies if this rank's node has its part of `memory`, or why there is no run."""
    manifest, device = manifest_of(config), torch.device("cpu")
    sharded.get_system_memory = lambda: memory[dist.get_rank()]
    try:
        _, placed = sharded.shard(make_task(manifest, config, device), manifest, config, device, dist.get_world_size())
    except InputError as error:
        return str(error)
    return sorted((p.table, p.kind, p.kernel, p.ranks) for p in placed)


def solved(config: RunConfig, ddr: int) -> list:
    """The same of `sml-dist plan`."""
    found = solve(config, dataset_tables(config.data.path, manifest_of(config)), Cluster(2, 2, "cpu", hbm=0, ddr=ddr, **links("cpu")))
    return sorted((t.table, t.kind, t.kernel, t.ranks) for t in found.tables)


@pytest.mark.parametrize(("memory", "kind"), [((20 * MB,) * 2, "row_wise"), ((TB, 20 * MB), "row_wise"), ((TB, TB), "table_wise")])
def test_training_places_tables_as_the_plan_command_does_for_the_least_memory_of_a_worker(config, memory, kind):
    found = on_ranks(2, planned, config, memory)
    assert found[0] == found[1] == solved(config, min(memory))
    assert found[0][0][1] == kind


@pytest.mark.parametrize(("memory", "way_out"), [(5, "train on"), (9, "set train.checkpoint_in_background=false, or train on")])
def test_tables_that_do_not_fit_the_workers_are_refused_in_one_line_on_every_rank(config, memory, way_out):
    """With 9 MB there is room for the tables, and none for the copies of a checkpoint."""
    for said in on_ranks(2, planned, config, (memory * MB,) * 2):
        assert said == (
            f"embedding: the tables do not fit: a worker has {memory / 2:.2f} MB of its node's memory, 15% of which stays free, and the "
            f"fullest would need 7.22 MB; {way_out} more or larger nodes or lower embedding.dim; sml-dist plan CONFIG --device cpu "
            f"--world-size 2 --local-world-size 2 --ddr {memory:.2f}MB lists what helps"
        )


def test_a_gpus_worker_has_the_memory_of_its_card_and_its_part_of_the_nodes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=16 * 10**9))
    monkeypatch.setattr(sharded, "get_system_memory", lambda: 64 * 10**9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with one_process(1):
        here, _ = sharded.cluster_here(torch.device("cuda"), 4)  # of which the other three are in no group
    assert (here.memory, here.host_memory) == (16 * 10**9, 16 * 10**9)


def refused(memory: int) -> str:
    """What a rank is told whose torch can use a GPU, where that of rank 1 cannot."""
    torch.cuda.get_device_properties = lambda device: SimpleNamespace(total_memory=memory)
    try:
        sharded.cluster_here(torch.device("cpu" if dist.get_rank() == 1 else "cuda"), 1)
    except InputError as error:
        return str(error)
    return "not refused"


def test_workers_with_and_without_a_gpu_are_refused_in_one_line_on_every_rank():
    said = on_ranks(2, refused, 16 * 10**9)
    assert said[0] == said[1]
    assert said[0].startswith("train.device: torch can use a GPU on some workers, and not on [1]; run `make KIND=gpu setup` on every node")


def test_the_shards_of_a_rank_lie_on_its_own_gpu_on_uneven_nodes_too(config):
    """Two GPUs on one node and one on another: rank 1's is the second of its node."""
    manifest, cluster = manifest_of(config), Cluster(3, 1, "cuda", hbm=10**9, ddr=10**9, **links("cuda"))
    tables = dataset_tables(config.data.path, manifest)
    plan = ShardingPlan({"tables": make_plan(replace(config.embedding, sharding="row_wise"), tables, cluster, 96, fixed=0)[0]})
    sharded.place(plan, [torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cuda:0")])
    shards = plan.plan["tables"]["t_C1"].sharding_spec.shards
    assert [str(shard.placement) for shard in shards] == ["rank:0/cuda:0", "rank:1/cuda:1", "rank:2/cuda:0"]


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "column_wise", "data_parallel"])
def test_a_device_may_be_named_otherwise_than_its_tensors_name_it(config, sharding):
    """As "cuda" is, whose tensors are on "cuda:0"; on a CPU those of "cpu:0" are on "cpu"."""
    with one_process(1):
        laboratory = Laboratory.of(
            replace(config, embedding=replace(config.embedding, sharding=sharding)), Place(device=torch.device("cpu:0"))
        )
        assert laboratory.train()["rows"]


def test_making_a_task_draws_no_table(config):
    """A checkpoint would be loaded over what was drawn, and a large table takes minutes."""
    manifest, device = read_manifest(config.data.path), torch.device("cpu")
    whole = replace(config, embedding=replace(config.embedding, sharding="table_wise"))
    with one_process(1):
        task = make_task(manifest, whole, device)
        before = torch.get_rng_state()
        model, _ = sharded.shard(task, manifest, whole, device, 1)
        assert torch.equal(torch.get_rng_state(), before)
        assert not any(weight.any() for name, weight in tables_of(model))


def test_drawing_tables_beats_at_each_block(config, monkeypatch):
    monkeypatch.setattr(sharded, "BLOCK_ROWS", 30)
    with one_process(1):
        model, beats = Laboratory.of(config).trainer.model, []
        sharded.start_tables(model, config, lambda: beats.append(1))
        assert len(beats) == sum(-(-len(weight) // 30) for _, weight in tables_of(model)) > 2


def test_only_a_run_that_goes_on_from_no_checkpoint_draws_its_tables(config, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(keeper, "start_tables", lambda *given: drawn.append(1) or sharded.start_tables(*given))
    for steps in (2, 4):
        run = replace(config.run, storage=str(tmp_path))
        assert train_alone(replace(config, run=run, train=replace(config.train, max_steps=steps)))["steps"] == steps
    assert len(drawn) == 1


def tables_of(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(piece.name, piece.tensor) for piece in weights(model) if piece.name.startswith("t_")]
