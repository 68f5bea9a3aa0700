"""What a save costs the training that goes on beside it: the benchmark's DNN on two workers, with a save and without, in turns."""

import os
import statistics
import time
from pathlib import Path

import pytest

from sml_dist.config.run import RunConfig, load
from sml_dist.data.synthetic import synth
from sml_dist.session import LOCAL_ENVIRONMENT
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.loop import Progress
from sml_dist.train.state import pieces
from sml_dist.train.storage import Storage
from tests.train.ranks import make_trainer, on_ranks

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(1200)]
STRETCH, PAIRS, EVERY = 80, 10, 60.0  # steps of a stretch, pairs of stretches, seconds from one save to the next in a run


def stretches(config: RunConfig, folder: Path) -> dict:
    """Seconds of each stretch with a save and of the one after it without, and of what a save stands still for; on one rank."""
    trainer, batches = make_trainer(config)
    store, stream, progress, written = Checkpoints(Storage(folder)), batches(), Progress(), []

    def stretch(save: bool) -> float:
        started = time.monotonic()
        if save:
            store.save(progress.step, pieces(trainer.model, trainer.optimizers), {})
        for _ in range(STRETCH):
            trainer.step(next(stream), progress)
        store.wait()
        seconds = time.monotonic() - started
        if save:
            written.append(store.take_written())
        return seconds

    stretch(save=True)  # the first save allocates the memory that later ones copy into
    pairs = [(stretch(save=True), stretch(save=False)) for _ in range(PAIRS)]
    return {"pairs": pairs, "blocked": [each["blocked_seconds"] for each in written[1:]], "written": written[-1]}


def test_one_save_a_minute_costs_less_than_a_fiftieth(tmp_path, monkeypatch):
    for name, value in LOCAL_ENVIRONMENT.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    synth(500_000, str(tmp_path / "data"), table_rows=4_300_000)
    config = load(
        "configs/smoke.yaml",
        [
            f"data.path={tmp_path}/data", "embedding.dim=16", "train.global_batch_size=4096", "model.name=dnn",
            "model.tower.hidden=[400,400,400]", "model.sml.enabled=false",
        ],
    )  # fmt: skip
    found, _ = on_ranks(2, stretches, config, tmp_path / "checkpoints")
    costs = [with_save - without for with_save, without in found["pairs"]]
    cost, low, high = statistics.median(costs), *statistics.quantiles(costs)[::2]
    without, still = statistics.median(b for _, b in found["pairs"]), statistics.median(found["blocked"])
    size, seconds = found["written"]["bytes"] / 1e6, found["written"]["seconds"]
    print(f"{STRETCH} steps: {without:.2f} s; {size:.0f} MB took {seconds:.2f} s beside them, stood still {still:.3f} s,")
    print(f"and cost {cost:.3f} s (quartiles {low:.3f}, {high:.3f}): {cost / EVERY:.2%} of a minute")
    assert cost / EVERY < 0.02
