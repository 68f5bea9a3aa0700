"""What must hold on a GPU: `make test-gpu`; skipped where there is none, and in any other run of the tests, which see none.

Which tables a plan puts behind a UVM cache is tested without one, in tests/embeddings/test_capacity.py.
"""

import contextlib
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch._dynamo.utils import counters

from sml_dist.config.run import RunConfig, parse
from sml_dist.data.stream import DirectStream
from sml_dist.embeddings.sharding import Sharder
from sml_dist.spec import InputError
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.in_process import Laboratory, one_process
from sml_dist.train.loading import loaded
from sml_dist.train.loop import Progress, Trainer
from sml_dist.train.place import Place
from sml_dist.train.resume import load, load_weights
from sml_dist.train.state import fused, pieces
from sml_dist.train.storage import Storage
from sml_dist.train.worker import train_watched

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here, or not asked for: -m gpu")]
STEPS = 30
GROUP = "cpu:gloo,cuda:nccl"
SML = {"mtn": {"placement": "both"}}
DCN_V2 = {"name": "dcn_v2", "tower": {"hidden": [64, 32]}, "sml": SML}


@pytest.fixture(scope="module")
def dataset(synthetic) -> str:
    return synthetic(40_000, fields=6, dense=4, table_rows=3_000)


def config(dataset: str, precision: str = "fp32", sharding: str = "table_wise", model=None, train=None, run=None, **embedding) -> RunConfig:
    return parse(
        {
            "run": run or {"name": "gpu"},
            "data": {"path": dataset, "streams": 4},
            "model": model or DCN_V2,
            "embedding": {"dim": 8, "lr": 0.05, "sharding": sharding, **embedding},
            "train": {"global_batch_size": 512, "epochs": 1, "precision": precision, "max_steps": STEPS, "compile": False} | (train or {}),
        }
    )


def losses(config: RunConfig, device: str, look: Callable[[Any], None] = lambda model: None) -> list[float]:
    place = Place(device=torch.device(device))
    with one_process(backend=GROUP if device == "cuda" else "gloo"):
        laboratory, progress, found = Laboratory.of(config, place), Progress(), []
        with contextlib.closing(laboratory.trainer.coming(laboratory.stream.batches())) as items:
            for table, _, exchange in itertools.islice(items, STEPS):
                found.append(laboratory.trainer.step(table, progress, exchange)[0])
        look(laboratory.trainer.model)
    return found


def check_kernel(kernel: str, model: Any) -> None:
    """All tables lie where the kernel has them: in the GPU's memory, in the host's, or there behind a cache."""
    found = {(module.weights_uvm.numel() > 0, module.lxu_cache_weights.numel() > 0) for module in fused(model)}
    assert found == {{"fused": (False, False), "fused_uvm": (True, False), "fused_uvm_caching": (True, True)}[kernel]}


@pytest.fixture
def compiled():
    """The test fails if nothing in it was compiled."""
    torch._dynamo.reset()
    counters.clear()
    yield
    assert counters["stats"]["unique_graphs"] > 0


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "column_wise", "data_parallel"])
def test_a_nccl_group_of_one_trains_as_the_cpu_does(dataset, sharding):
    settings = config(dataset, sharding=sharding)
    assert losses(settings, "cuda") == pytest.approx(losses(settings, "cpu"), rel=2e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_every_table_optimizer_lowers_the_loss(dataset, optimizer):
    found = losses(config(dataset, optimizer=optimizer, lr=0.01), "cuda")
    assert sum(found[-5:]) < sum(found[:5])


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_a_run_started_again_ends_as_one_that_went_through(dataset, tmp_path, optimizer):
    """Fused Adam counts its steps itself: begun anew, the count would make the first updates after a restart a third as large, and with
    the batches of evaluations in it those of a run that went through up to twice as large."""

    def trained(name: str, steps: int) -> dict[str, Any]:
        run, train = {"name": name, "storage": str(tmp_path)}, {"max_steps": steps, "eval_every_steps": 5, "eval_batch_size": 100}
        settings = config(dataset, train=train, run=run, optimizer=optimizer, lr=0.01)
        with one_process(backend=GROUP):
            return train_watched(settings, Place(device=torch.device("cuda")), DirectStream)

    through = trained("through", STEPS)
    trained("cut", STEPS // 2)
    again = trained("cut", STEPS)
    assert (again["steps"], again["restarts"]) == (STEPS, 1)
    assert again["valid"]["logloss"] == pytest.approx(through["valid"]["logloss"], rel=1e-4)


def test_l2_decays_as_on_the_cpu(dataset):
    settings = config(dataset, l2=0.05)
    found = losses(settings, "cuda")
    assert found == pytest.approx(losses(settings, "cpu"), rel=2e-3) and found != pytest.approx(losses(config(dataset), "cuda"), rel=2e-3)


@pytest.mark.parametrize("batch", [None, 1_000])
def test_evaluation_is_as_on_the_cpu(dataset, batch):
    def metrics(device: str) -> dict[str, float]:
        with one_process(backend=GROUP if device == "cuda" else "gloo"):
            settings = config(dataset, train={"eval_batch_size": batch})
            found = Laboratory.of(settings, Place(device=torch.device(device))).trainer.evaluate()
        return {name: found[name] for name in ("auc", "logloss", "calibration", "rows")}

    assert metrics("cuda") == pytest.approx(metrics("cpu"), rel=1e-4)


def test_bf16_follows_fp32(dataset):
    found, exact = (losses(config(dataset, precision), "cuda") for precision in ("bf16", "fp32"))
    assert found == pytest.approx(exact, rel=0.05) and found != pytest.approx(exact, rel=1e-6)


def test_tf32_products_follow_fp32(dataset):
    found = losses(config(dataset, "tf32"), "cuda")
    assert torch.backends.cuda.matmul.allow_tf32
    assert found == pytest.approx(losses(config(dataset), "cuda"), rel=0.02)
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(DCN_V2, id="dcn_v2"),
        pytest.param({"name": "finalmlp", "first": {"hidden": [64]}, "second": {"hidden": [32]}, "sml": SML}, id="finalmlp"),
        pytest.param({**DCN_V2, "tower": {"hidden": [64, 32], "norm": "batch"}, "sml": {"deep_supervision": True}}, id="norm, supervision"),
    ],
)
def test_compiled_training_is_training(dataset, compiled, model):
    """Health is heard of at the first step and the twentieth: those two are taken as the model is written."""
    train = {"health_every_steps": 20}
    found = losses(config(dataset, model=model, train=train | {"compile": True}), "cuda")
    assert found == pytest.approx(losses(config(dataset, model=model, train=train), "cuda"), rel=2e-3)


def test_dropout_of_compiled_training_repeats(dataset, compiled):
    settings = config(dataset, model={**DCN_V2, "tower": {"hidden": [64, 32], "dropout": 0.3}}, train={"compile": True})
    assert losses(settings, "cuda") == pytest.approx(losses(settings, "cuda"), rel=1e-3)


@pytest.mark.parametrize("kernel", ["fused_uvm", "fused_uvm_caching"])
def test_tables_in_host_memory_train_as_in_the_gpus(dataset, monkeypatch, kernel):
    exact = losses(config(dataset), "cuda")
    monkeypatch.setattr(Sharder, "compute_kernels", lambda self, kind, device: [kernel])
    assert losses(config(dataset), "cuda", look=partial(check_kernel, kernel)) == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize(("loading", "background"), [("run", True), ("run", False), ("weights", True)])
@pytest.mark.parametrize("kernel", ["fused", "fused_uvm", "fused_uvm_caching"])
def test_a_model_that_goes_back_to_an_earlier_state_has_no_row_of_later(dataset, tmp_path, monkeypatch, kernel, loading, background):
    """A UVM cache that kept its rows would look them up, and write them over the loaded ones."""
    monkeypatch.setattr(Sharder, "compute_kernels", lambda self, kind, device: [kernel])
    with one_process(backend=GROUP):
        laboratory = Laboratory.of(config(dataset), Place(device=torch.device("cuda")))
        trainer, progress, step = laboratory.trainer, Progress(), STEPS // 3
        check_kernel(kernel, trainer.model)
        trainer.optimizers.create_state()
        store = Checkpoints(Storage(tmp_path / "checkpoints"), background=background)
        tables = list(itertools.islice(laboratory.stream.batches(), STEPS))

        def trained(first: int, last: int) -> list[float]:
            found = []
            for progress.step in range(first, last):
                found.append(trainer.step(tables[progress.step], progress)[0])
            return found

        trained(0, step)
        store.save(step, pieces(trainer.model, trainer.optimizers), {})
        store.wait()
        before = trainer.evaluate()
        after = trained(step, STEPS)
        assert trainer.evaluate()["logloss"] != pytest.approx(before["logloss"], rel=1e-3)
        if loading == "run":
            load(store.at(step), trainer.model, trainer.optimizers)
        else:
            load_weights(store.at(step), trainer.model)
        assert trainer.evaluate()["logloss"] == pytest.approx(before["logloss"], rel=1e-4)
        if loading == "run":
            assert trained(step, STEPS) == pytest.approx(after, rel=2e-3)


def test_a_row_s_state_of_column_shards_is_joined_in_a_whole_table_as_on_the_cpu(dataset, tmp_path):
    """Of dim 32 TorchRec cuts columns in two, on one worker too, and rowwise Adagrad keeps a number for each half of a row."""

    def gone_on(device: str) -> list[float]:
        with one_process(backend=GROUP if device == "cuda" else "gloo"):
            store, place = Checkpoints(Storage(tmp_path / device)), Place(device=torch.device(device))

            def trained(sharding: str, first: int) -> tuple[Trainer, list[float]]:
                laboratory = Laboratory.of(config(dataset, sharding=sharding, optimizer="rowwise_adagrad", dim=32), place)
                trainer, progress, found = laboratory.trainer, Progress(), []
                trainer.optimizers.create_state()
                if first:
                    load(store.at(first), trainer.model, trainer.optimizers)
                for progress.step, table in enumerate(itertools.islice(laboratory.stream.batches(), first, first + STEPS // 2), first):
                    found.append(trainer.step(table, progress)[0])
                return trainer, found

            trainer, _ = trained("column_wise", 0)
            store.save(STEPS // 2, pieces(trainer.model, trainer.optimizers), {})
            store.wait()
            return trained("table_wise", STEPS // 2)[1]

    assert gone_on("cuda") == pytest.approx(gone_on("cpu"), rel=2e-3)


def test_an_id_out_of_range_never_reaches_the_tables(dataset):
    with one_process(backend=GROUP):
        laboratory = Laboratory.of(config(dataset), Place(device=torch.device("cuda")))
        good, bad = itertools.islice(laboratory.stream.batches(), 2)
        ids = bad["ids"].combine_chunks()
        values = ids.flatten().to_numpy().copy()
        values[7] = 1 << 30
        column = pa.FixedSizeListArray.from_arrays(pa.array(values), ids.type.list_size)
        bad = bad.set_column(bad.column_names.index("ids"), "ids", column)
        batches = loaded((good, bad), laboratory.trainer.collate, laboratory.trainer.device)
        next(batches)
        with pytest.raises(InputError, match="id 1073741824 is outside its table of"):
            next(batches)


def test_the_gpu_scores_rows_as_the_cpu_does(dataset):
    settings, scores = config(dataset), []
    for device in ("cpu", "cuda"):
        with one_process(backend=GROUP if device == "cuda" else "gloo"):
            laboratory = Laboratory.of(settings, Place(device=torch.device(device)))
            batch = laboratory.sample("valid", 500).to(torch.device(device))
            with torch.no_grad():
                scores.append(laboratory.trainer.model.module.logit(batch).cpu())
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-4)
