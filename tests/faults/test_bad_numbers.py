"""NaN in the input, the loss or a gradient, on any worker: the step changes nothing, is named, and three in a row roll back."""

import itertools
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import torch.distributed as dist

from sml_dist.config.run import RunConfig
from sml_dist.spec import InputError
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.evaluate import evaluate
from sml_dist.train.finite import Diverged
from sml_dist.train.loop import Progress
from sml_dist.train.resume import load
from sml_dist.train.state import pieces
from sml_dist.train.storage import Storage
from tests.train.ranks import make_trainer, on_ranks
from tests.train.test_ranks import config

pytestmark = pytest.mark.faults
NAN = float("nan")


@pytest.fixture(scope="module")
def dataset(synthetic) -> str:
    return synthetic(4_000, fields=5, dense=3, table_rows=400)


def bytes_of(trainer) -> dict[str, bytes]:
    """Every weight, statistic and optimiser state of this rank."""
    found = {f"{p.name}@{p.offset}": p.tensor.detach().numpy().tobytes() for p in pieces(trainer.model, trainer.optimizers)}
    return found | {f"buffer {n}": b.numpy().tobytes() for n, b in trainer.model.module.model.named_buffers()}


def with_nan(table: pa.Table, column: str) -> pa.Table:
    """The table with a NaN in its fourth row."""
    if column == "dense":
        values = table["dense"].combine_chunks().flatten().to_numpy().copy().reshape(table.num_rows, -1)
        values[3, 1] = NAN
        new = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    else:
        values = table[column].to_numpy().copy()
        values[3] = NAN
        new = pa.array(values)
    return table.set_column(table.column_names.index(column), column, new)


def inject(trainer, kind: str, table: pa.Table) -> tuple[pa.Table, object]:
    """The batch to train on, and what to call to end the injection."""
    if kind in ("dense", "label", "weight"):
        return with_nan(table, kind), lambda: None
    if kind == "loss":
        loss = trainer.loss
        trainer.loss = lambda logit, batch: loss(logit, batch) * NAN
        return table, lambda: setattr(trainer, "loss", loss)
    if kind == "gradient of a parameter":
        hook = next(trainer.model.module.model.parameters()).register_hook(lambda grad: grad * NAN)
        return table, hook.remove
    embed = trainer.model.module.embed
    if kind == "embeddings":
        trainer.model.module.embed = lambda ids: embed(ids) * NAN
    else:  # the gradient that goes to the tables: infinite where the embeddings are finite

        class Exploding(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, grad):
                return grad * float("inf")

        model = trainer.model.module.model
        hook = model.register_forward_pre_hook(lambda module, inputs: (Exploding.apply(inputs[0]), *inputs[1:]))
        return table, hook.remove
    return table, lambda: setattr(trainer.model.module, "embed", embed)


KINDS = {
    "dense": "numeric feature",
    "label": "label: 1 of",
    "weight": "weight: 1 of",
    "loss": "the loss is not finite, from finite logits",
    "gradient of a parameter": "the gradient of the dense part is not finite",
    "embeddings": "embeddings of field",
    "gradient of the embeddings": "gradient of the embeddings",
}


def skips(config: RunConfig) -> list[tuple[str, int, bool, str]]:
    """For each kind and rank: whether a bad step changed a byte, and what it said."""
    trainer, batches = make_trainer(config)
    said, progress, seen = [], Progress(), []
    trainer.log = lambda **values: said.append(values)
    tables = batches()
    for table in itertools.islice(tables, 3):
        trainer.step(table, progress)
    for kind in KINDS:
        for rank in range(dist.get_world_size()):
            before, done, table = bytes_of(trainer), lambda: None, next(tables)
            if dist.get_rank() == rank:
                table, done = inject(trainer, kind, table)
            trainer.step(table, progress)
            done()
            unchanged = bytes_of(trainer) == before
            trainer.step(next(tables), progress)
            seen.append((kind, rank, unchanged, bytes_of(trainer) != before, progress.bad_steps, said[-1]["why"], said[-1]["batch"]))
    return seen


@pytest.mark.parametrize("sharding", ["row_wise", "auto"])
def test_a_number_that_is_not_finite_anywhere_on_any_rank_changes_no_byte_and_is_named(dataset, sharding):
    model = {"name": "dnn", "tower": {"hidden": [16, 8], "norm": "batch"}}
    each = config(dataset, model=model, embedding={"sharding": sharding, "data_parallel_rows": 50})
    for result in on_ranks(2, skips, each):
        assert len(result) == 2 * len(KINDS)
        for number, (kind, rank, unchanged, trained_on, in_a_row, why, batch) in enumerate(result):
            assert unchanged, f"{kind} on rank {rank} changed weights"
            assert trained_on and in_a_row == 0, f"the step after {kind} did not train"
            assert KINDS[kind] in why and (kind == "gradient of a parameter" or f"worker {rank}" in why), why
            assert batch == 3 + 2 * number


def rolled_back(config: RunConfig, folder: Path, bad: list[int], once: bool) -> list:
    """Trains 40 steps with a checkpoint at 10 and bad steps at `bad`, the first time or every time."""
    store = Checkpoints(Storage(folder))
    trainer, batches = make_trainer(config)
    said, times = [], {}
    trainer.log = lambda **values: said.append(values)

    def restore():
        found = store.latest()
        if found is None:
            return None
        load(found, trainer.model, trainer.optimizers)
        return Progress(**found.manifest["progress"])

    def save(progress):
        store.save(progress.step, pieces(trainer.model, trainer.optimizers), {"progress": progress.as_dict()})
        store.wait()

    loss = trainer.loss

    def sometimes(logit, batch):
        step = current.step
        if trainer.model.training and step in bad and (not once or times.setdefault(step, 0) == 0):
            times[step] = 1
            return loss(logit, batch) * NAN
        return loss(logit, batch)

    progress = current = Progress()
    step = trainer.step

    def tracked(table, at, *more):
        nonlocal current
        current = at
        return step(table, at, *more)

    trainer.step, trainer.loss, trainer.keeper.restore, trainer.keeper.save = tracked, sometimes, restore, save
    try:
        end = trainer.run(batches, progress)
    except InputError as error:
        return [str(error), None, said]
    rate = trainer.optimizers.rates[0][0]["lr"] / (config.train.lr * trainer.schedule.factor(end.step - 1))
    return [end.step, (end.rollbacks, rate, end.skipped), said]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_three_bad_steps_in_a_row_go_back_to_the_last_checkpoint_with_half_the_rates(dataset, tmp_path, schedule):
    each = config(dataset, train={"max_steps": 40, "checkpoint_every_steps": 10, "schedule": schedule})
    for end, (rollbacks, factor, skipped), said in on_ranks(2, rolled_back, each, tmp_path / "a", [13, 20, 25, 26, 27], True):
        assert (end, rollbacks, skipped) == (40, 1, 1) and factor == pytest.approx(0.5)  # 13 was skipped before the checkpoint of step 20
        events = [(line["event"], line["step"]) for line in said if line.get("event") in ("skipped", "rolled back")]
        assert events == [("skipped", 13), ("skipped", 20), ("skipped", 25), ("skipped", 26), ("skipped", 27), ("rolled back", 20)]


def test_bad_steps_that_come_back_stop_the_run_and_tell_why(dataset, tmp_path):
    each = config(dataset, train={"max_steps": 40, "checkpoint_every_steps": 10})
    for message, _, said in on_ranks(2, rolled_back, each, tmp_path / "a", [25, 26, 27], False):
        assert message.startswith("3 bad steps in a row, the last step 27 (epoch 0, batch 27): the loss is not finite, from finite logits")
        assert "given up after 2 rollbacks (train.max_rollbacks); mend the data, or lower train.lr or embedding.lr" in message
        assert [line["step"] for line in said if line.get("event") == "rolled back"] == [20, 20]


def test_without_a_checkpoint_to_go_back_to_the_run_stops(dataset, tmp_path):
    each = config(dataset, train={"max_steps": 40, "checkpoint_every_steps": 10})
    message = on_ranks(1, rolled_back, each, tmp_path / "a", [2, 3, 4], False)[0][0]
    assert "there is no checkpoint yet to go back to" in message


def test_a_validation_metric_that_is_not_finite_is_no_best_and_one_that_the_rows_leave_undefined_is_no_divergence(dataset):
    assert on_ranks(1, judged_on_rank, dataset) == [True]


def test_a_score_that_is_not_finite_on_one_worker_ends_the_evaluation_on_all_when_its_batches_are_read(dataset):
    for said, left in on_ranks(2, evaluated_on_rank, dataset):
        assert "evaluation: numeric feature" in said and "(worker 1)" in said and left == 0


def evaluated_on_rank(dataset: str) -> tuple[str, int]:
    """What it says, and how many batches it left."""
    trainer, batches = make_trainer(config(dataset))
    tables = list(itertools.islice(batches(), 3))
    if dist.get_rank() == 1:
        tables[0] = with_nan(tables[0], "dense")
    rest = iter(tables)
    with pytest.raises(Diverged) as error:
        evaluate(trainer.model, rest, trainer.collate, trainer.device, rows=192)
    return str(error.value), len(list(rest))


def judged_on_rank(dataset: str) -> bool:
    trainer, _ = make_trainer(config(dataset))
    for monitor, metrics, kind, line in (
        ("logloss", {"logloss": NAN}, Diverged, "^logloss on the validation rows is nan at step 7"),
        ("auc", {"auc": NAN}, InputError, "^train.monitor auc is undefined: .* one label; set train.monitor=logloss$"),
        ("ne", {"ne": NAN}, InputError, "^train.monitor ne is undefined: .* one label; set train.monitor=logloss$"),
        ("gauc", {"auc": 0.5, "gauc": NAN}, InputError, "^train.monitor gauc is undefined: no group of .* both labels; .*=logloss$"),
        ("gauc", {"rows": 0, "auc": NAN}, InputError, "^no validation row weighs anything, so there is nothing to evaluate; mend"),
        ("b.gauc", {"gauc": 0.5, "labels": {"b": {"gauc": NAN}}}, InputError, "^train.monitor b.gauc is .*; set train.monitor=b.logloss$"),
    ):
        trainer.config, progress = replace(trainer.config, monitor=monitor), Progress(step=7)
        with pytest.raises(kind, match=line):
            trainer.judge(metrics, progress)
        assert progress.best is None
    return True
