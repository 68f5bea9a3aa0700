"""What must hold on a GPU; skipped where there is none.

Which tables a plan puts behind a UVM cache is tested without one, in tests/embeddings/test_capacity.py.
"""

import itertools

import pytest
import torch

from sml_dist.config.run import RunConfig, parse
from sml_dist.data.synthetic import synth
from sml_dist.train.in_process import Laboratory, one_process
from sml_dist.train.loop import Progress
from sml_dist.train.place import Place

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]
STEPS = 30
GROUP = "cpu:gloo,cuda:nccl"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("data") / "synth")
    synth(40_000, path, fields=6, dense=4, table_rows=3_000)
    return path


def config(dataset: str, precision: str = "fp32", sharding: str = "table_wise", **embedding) -> RunConfig:
    return parse(
        {
            "run": {"name": "gpu"},
            "data": {"path": dataset, "streams": 4},
            "model": {"name": "dcn_v2", "tower": {"hidden": [64, 32]}, "sml": {"mtn": {"placement": "both"}}},
            "embedding": {"dim": 8, "lr": 0.05, "sharding": sharding, **embedding},
            "train": {"global_batch_size": 512, "epochs": 1, "precision": precision, "max_steps": STEPS},
        }
    )


def losses(config: RunConfig, device: str) -> list[float]:
    place = Place(device=torch.device(device))
    with one_process(backend=GROUP if device == "cuda" else "gloo"):
        laboratory, progress, found = Laboratory.of(config, place), Progress(), []
        for table in itertools.islice(laboratory.stream.batches(), STEPS):
            found.append(laboratory.trainer.step(table, progress))
            laboratory.trainer.advance(progress)
    return found


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "column_wise", "data_parallel"])
def test_a_nccl_group_of_one_trains_as_the_cpu_does(dataset, sharding):
    settings = config(dataset, sharding=sharding)
    assert losses(settings, "cuda") == pytest.approx(losses(settings, "cpu"), rel=2e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_every_table_optimizer_lowers_the_loss(dataset, optimizer):
    found = losses(config(dataset, optimizer=optimizer, lr=0.01), "cuda")
    assert sum(found[-5:]) < sum(found[:5])


def test_bf16_follows_fp32(dataset):
    assert losses(config(dataset, "bf16"), "cuda") == pytest.approx(losses(config(dataset), "cuda"), rel=0.05)


def test_tf32_products_follow_fp32(dataset):
    exact = losses(config(dataset), "cuda")
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert losses(config(dataset), "cuda") == pytest.approx(exact, rel=0.02)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def test_the_gpu_scores_rows_as_the_cpu_does(dataset):
    settings, scores = config(dataset), []
    for device in ("cpu", "cuda"):
        with one_process(backend=GROUP if device == "cuda" else "gloo"):
            laboratory = Laboratory.of(settings, Place(device=torch.device(device)))
            batch = laboratory.sample("valid", 500).to(torch.device(device))
            with torch.no_grad():
                scores.append(laboratory.trainer.model.module.logit(batch).cpu())
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-4)
