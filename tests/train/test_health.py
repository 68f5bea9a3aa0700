"""Laws of the health signals: they are the step's own numbers, the same on all workers, and leave no trace in training."""

import itertools
import math

import pytest
import torch

from sml_dist.config.run import RunConfig, parse
from sml_dist.models.fields import FieldShape, SequenceShape
from sml_dist.models.zoo import ZOO, build
from sml_dist.nn.skip_logit import LastLogit, SkipLogit
from sml_dist.train.health import ROWS, heads_heard, mean_cosine, part_of, signals
from sml_dist.train.in_process import alone
from sml_dist.train.loop import Progress
from tests.train.ranks import make_trainer, on_ranks, weights


@pytest.fixture(scope="module")
def dataset(synthetic) -> str:
    return synthetic(8_000, fields=4, dense=2, table_rows=50)


def config(dataset: str, every: int | None, norm: str = "batch") -> RunConfig:
    return parse(
        {
            "run": {"name": "health", "storage": "unused"},
            "data": {"path": dataset, "streams": 2},
            "model": {"name": "dcn_v2", "cross_layers": 2, "tower": {"hidden": [8, 4], "norm": norm}},
            "embedding": {"dim": 4, "data_parallel_rows": 20},
            "train": {"global_batch_size": 512, "epochs": 1, "precision": "fp32", "health_every_steps": every},
        }
    )


def steps(config: RunConfig, count: int) -> tuple[list[dict], dict]:
    """The lines and the weights of some steps."""
    trainer, batches = make_trainer(config)
    lines, progress = [], Progress()
    trainer.log = lambda **values: lines.append(values)
    for table in itertools.islice(batches(), count):
        trainer.step(table, progress)
    return lines, weights(trainer.model)


def test_health_is_logged_when_due_equal_on_all_workers_and_changes_no_weight(dataset):
    watched = on_ranks(2, steps, config(dataset, 3), 7)
    unwatched = on_ranks(2, steps, config(dataset, None), 7)
    assert [line["step"] for line in watched[0][0]] == [1, 3, 6] and not unwatched[0][0]
    own = ("cpu_cores", "memory_mb")  # of rank 0 alone, as logged
    for here, there in zip(watched[0][0], watched[1][0], strict=True):
        assert str({k: v for k, v in here.items() if k not in own}) == str({k: v for k, v in there.items() if k not in own})
    for name, value in watched[0][1].items():
        assert value.tobytes() == unwatched[0][1][name].tobytes(), name
    line = watched[0][0][-1]
    heads = {key.split("/")[1] for key in line if key.startswith("cosine/")}
    assert heads == {"head.1", "head.2", "cross_head.1", "cross_head.2"}
    assert {key for key in line if key.startswith("row_norm/")} == {f"row_norm/C{i}" for i in range(1, 5)}
    parts = [key for key in line if key.startswith("gradient_norm/") and key != "gradient_norm/tables"]
    assert math.isclose(math.hypot(*(line[key] for key in parts)), line["gradient_norm"], rel_tol=1e-5)
    assert line["memory_mb"] > 10 and line["cpu_cores"] > 0


def test_gradient_norms_are_the_global_batchs_on_any_number_of_workers(dataset):
    """But for batch norm, whose statistics are each worker's own."""
    one, two = (on_ranks(workers, steps, config(dataset, 1, norm="none"), 1)[0][0][0] for workers in (1, 2))
    norms = {key: value for key, value in one.items() if key.startswith("gradient_norm")}
    assert "gradient_norm/tables" in norms and norms == pytest.approx({key: two[key] for key in norms}, rel=1e-4)


def by_hand(config: RunConfig) -> tuple[dict, dict]:
    """A step's line, and its signals from the model's own parts before that step."""
    trainer, batches = make_trainer(config)
    table = next(batches())
    task, batch, lines = trainer.model.module, trainer.collate(table), []
    model = task.model
    kept = [buffer.clone() for buffer in model.buffers()]
    with torch.no_grad():
        x_BFD = task.embed(batch.ids)
        outputs = model.tower(torch.cat([x_BFD.flatten(1), batch.dense], dim=1))
        assert isinstance(model.head, SkipLogit)
        wanted = {"cosine/head.2": mean_cosine(outputs[1][:ROWS]), "row_norm/C1": x_BFD[:, 0].norm(dim=1).mean().item()}
        wanted["term_variance/head.1"] = model.head.terms([h[:ROWS] for h in outputs])[:, 0].var().item()
    for buffer, value in zip(model.buffers(), kept, strict=True):
        buffer.copy_(value)
    trainer.log = lambda **values: lines.append(values)
    trainer.step(table, Progress())
    return lines[0], wanted


def test_the_signals_are_those_of_the_steps_own_forward(dataset):
    line, wanted = on_ranks(1, by_hand, config(dataset, 1))[0]
    for name, value in wanted.items():
        assert line[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("name", ZOO)
def test_every_model_of_the_zoo_says_how_its_layers_are(name):
    torch.manual_seed(0)
    labels = 2 if ZOO[name].multitask else 1
    shape = FieldShape(fields=6, dim=4, dense=2, sequences=(SequenceShape(target=1, length=2),), labels=labels)
    model = build(ZOO[name].config(), shape).train()
    x_BFD, dense_BN, fields = torch.randn(40, 6, 4, requires_grad=True), torch.randn(40, 2), [f"C{i}" for i in range(6)]
    with alone():
        with heads_heard(model) as heard:
            logit = model(x_BFD, dense_BN)
        logit.mean().backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        found = signals(model, heard, fields, x_BFD, logit.detach(), norm)
    assert found["logit_variance"] > 0 and found["row_norm/C5"] > 0
    heads = [module for module in model.modules() if isinstance(module, SkipLogit | LastLogit)]
    assert len(heard) == len(heads) and bool(heads) == (name not in ("lr", "fm"))
    terms = [value for key, value in found.items() if key.startswith("term_variance/")]
    assert all(value > 0 for value in terms) and len(terms) >= len(heads)


@pytest.mark.parametrize(
    "name, part",
    [("tower.layers.0.0.weight", "tower.layers.0"), ("head.linear.weight", "head.linear"), ("bias", "bias")],
)
def test_a_parameter_belongs_to_its_layer(name, part):
    assert part_of(name) == part
