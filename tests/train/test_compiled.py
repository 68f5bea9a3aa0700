"""Training compiled for this machine's CPU is training. On a GPU, as CUDA graphs: tests/gpu."""

import itertools

import pytest

from sml_dist.config.run import parse
from sml_dist.data.synthetic import synth
from sml_dist.spec import InputError
from sml_dist.train.in_process import Laboratory, one_process
from sml_dist.train.loop import Progress

STEPS = 12


@pytest.mark.long  # half a minute of compiling
def test_a_compiled_run_has_the_losses_and_the_scores_of_a_plain_one(tmp_path):
    """Health looks at the tenth step as the model is written, evaluation at all rows."""
    synth(20_000, str(tmp_path / "data"), fields=6, dense=4, table_rows=3_000)
    plain, compiled = (trained(str(tmp_path / "data"), compile=compile) for compile in (False, True))
    assert compiled == pytest.approx(plain, rel=1e-5)


def test_without_a_compiler_the_way_out_is_told_before_anything_is_compiled(monkeypatch, tmp_path):
    synth(2_000, str(tmp_path / "data"), fields=2, dense=1, table_rows=100)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"train.compile wants g\+\+, and this node has none; .* set train.compile=false"):
        trained(str(tmp_path / "data"), compile=True)


def trained(data: str, compile: bool) -> list[float]:
    config = parse(
        {
            "run": {"name": "run"},
            "data": {"path": data},
            "model": {"name": "dcn_v2", "tower": {"hidden": [64, 32]}, "sml": {"mtn": {"placement": "both"}}},
            "embedding": {"dim": 8, "lr": 0.05},
            "train": {"global_batch_size": 512, "precision": "fp32", "health_every_steps": 10, "compile": compile},
        }
    )
    with one_process():
        laboratory, progress, losses = Laboratory.of(config), Progress(), []
        for table in itertools.islice(laboratory.stream.batches(), STEPS):
            losses.append(laboratory.trainer.step(table, progress)[0])
        return [*losses, laboratory.trainer.evaluate()["auc"]]
