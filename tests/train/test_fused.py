"""FBGEMM's own modules under TorchRec's: what they keep beside the tensors of a run."""

import itertools
from collections.abc import Iterator

import pytest
from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
from torch import nn
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection

from sml_dist.config.run import parse
from sml_dist.data.synthetic import synth
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.in_process import Laboratory, one_process
from sml_dist.train.loop import Progress
from sml_dist.train.resume import load, load_weights
from sml_dist.train.shards import CheckpointReader
from sml_dist.train.state import fused, pieces, set_steps
from sml_dist.train.storage import Storage


@pytest.fixture
def laboratory(tmp_path) -> Iterator[Laboratory]:
    path = str(tmp_path / "synth")
    synth(1_000, path, fields=3, dense=2, table_rows=100)
    sections = {
        "run": {"name": "t"},
        "data": {"path": path, "streams": 4},
        "model": {"name": "dnn", "tower": {"hidden": [8]}},
        "embedding": {"dim": 4, "sharding": "row_wise", "optimizer": "rowwise_adagrad"},
        "train": {"global_batch_size": 32, "precision": "fp32"},
    }
    with one_process(1):
        yield Laboratory.of(parse(sections))


def test_the_fused_tables_of_a_sharded_task_are_found_or_it_is_an_error(laboratory):
    """An empty list would leave Adam's step counts as they are without a word."""
    model = laboratory.trainer.model
    assert len(list(fused(model))) == 1
    [tables] = [module for module in model.modules() if isinstance(module, ShardedEmbeddingBagCollection)]
    del tables._lookups  # as under another name
    with pytest.raises(AttributeError):
        set_steps(model, 3)


@pytest.mark.parametrize("loading", ["run", "weights"])
def test_no_row_of_before_stays_cached_once_weights_are_loaded(laboratory, tmp_path, monkeypatch, loading):
    """Cached rows would be looked up in place of the loaded ones, and written over them later: tests/gpu has such a cache."""
    trainer, called = laboratory.trainer, []
    trainer.optimizers.create_state()
    store = Checkpoints(Storage(tmp_path / "checkpoints"))
    store.save(3, pieces(trainer.model, trainer.optimizers), {})
    store.wait()
    fill, reset = CheckpointReader.fill, SplitTableBatchedEmbeddingBagsCodegen.reset_cache_states
    monkeypatch.setattr(CheckpointReader, "fill", lambda *given: (fill(*given), called.append("fill"))[0])
    monkeypatch.setattr(SplitTableBatchedEmbeddingBagsCodegen, "reset_cache_states", lambda self: (reset(self), called.append(self)))
    found = store.at(3)
    if loading == "run":
        load(found, trainer.model, trainer.optimizers)
    else:
        load_weights(found, trainer.model)
    assert called == ["fill", *fused(trainer.model)]


def test_scoring_is_no_step_to_the_fused_optimisers(laboratory):
    """They count one in every forward, and Adam's bias correction goes by it; a resumed run counts training's alone."""
    trainer, progress = laboratory.trainer, Progress()
    for table in itertools.islice(laboratory.stream.batches(), 3):
        trainer.step(table, progress)
    assert counts(trainer.model) == [(3, 3)]
    trainer.evaluate()
    assert counts(trainer.model) == [(3, 3)] and trainer.model.training


def counts(model: nn.Module) -> list[tuple[int, int]]:
    return [(int(module.iter), int(module.iter_cpu)) for module in fused(model)]
