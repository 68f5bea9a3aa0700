"""Laws of the depth study's measures and of its rules."""

import math

import pytest
import torch

from sml_dist.models.dnn import DNN, DNNConfig
from sml_dist.models.fields import FieldShape
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import TowerConfig
from sml_dist.studies.layers import dead_share, effective_rank, fresh_term_variance, measure_layers
from sml_dist.studies.statements import Rules, judge
from sml_dist.train.health import mean_cosine

torch.set_num_threads(1)


def test_the_effective_rank_of_an_identity_is_its_size():
    assert effective_rank(torch.eye(7, dtype=torch.float64)) == pytest.approx(7)
    assert effective_rank(torch.ones(9, 7, dtype=torch.float64)) == pytest.approx(1)
    assert effective_rank(torch.zeros(9, 7, dtype=torch.float64)) == 0


def test_mean_cosine_is_the_mean_over_pairs_and_leaves_zero_rows_out():
    h = torch.randn(9, 4, dtype=torch.float64)
    table = torch.nn.functional.cosine_similarity(h[:, None], h[None], dim=2)
    wanted = (table.sum() - 9) / 72
    assert mean_cosine(h) == pytest.approx(wanted.item())
    assert mean_cosine(torch.cat([h, torch.zeros(3, 4)])) == pytest.approx(wanted.item())
    assert mean_cosine(1e-30 * h) == pytest.approx(wanted.item())
    assert math.isnan(mean_cosine(torch.zeros(3, 4)))


def test_dead_units_are_those_that_say_the_same_of_every_row():
    h = torch.rand(20, 8)
    h[:, 1], h[:, 5] = 0.0, 0.25
    h[:, 2] = 0.0
    h[7, 2] = 1e-6  # one row moves it
    assert dead_share(h) == 2 / 8


def test_the_fresh_term_variance_is_that_of_many_fresh_heads():
    torch.manual_seed(0)
    h = torch.randn(50, 6, dtype=torch.float64) * torch.arange(1, 7)
    weights = torch.randn(6, 200_000, dtype=torch.float64) * (2 / 7) ** 0.5
    assert fresh_term_variance(h) == pytest.approx((h @ weights).var(dim=0).mean().item(), rel=0.01)


@pytest.mark.parametrize("sml", [SMLConfig(enabled=False), SMLConfig()], ids=["off", "on"])
def test_layers_are_measured_without_a_trace_in_the_model(sml):
    torch.manual_seed(0)
    model = DNN(DNNConfig(tower=TowerConfig(hidden=(6, 5, 4), norm="batch"), sml=sml), FieldShape(fields=2, dim=3, dense=1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers, whole = measure_layers(model, torch.randn(40, 2, 3), torch.randn(40, 1), torch.randint(2, (40,)).float())
    assert [row["layer"] for row in layers] == [0, 1, 2, 3]
    terms = [math.isnan(row["term variance"]) for row in layers]
    assert terms == ([True, False, False, False] if sml.enabled else [True, True, True, False])
    assert all(row["gradient norm"] > 0 for row in layers[1:])
    assert whole["logit variance"] > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_batch_norm_is_measured_with_the_batchs_own_statistics():
    torch.manual_seed(0)
    off = SMLConfig(enabled=False)
    model = DNN(DNNConfig(tower=TowerConfig(hidden=(6, 5), norm="batch"), sml=off), FieldShape(fields=2, dim=3, dense=0))
    batch = torch.randn(40, 2, 3), torch.randn(40, 0), torch.randint(2, (40,)).float()
    found = measure_layers(model.eval(), *batch)[0][-1]
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(100.0)
    assert measure_layers(model.eval(), *batch)[0][-1] == found


RULES = Rules(sml=("on",))


def tower(variant: str, depth: int, cosine: float, dead: float, last_variance: float) -> list[dict]:
    spread = [1.0, 1.0, *[last_variance] * (depth - 1)]
    place = {"variant": variant, "depth": depth, "moment": "start"}
    return [place | {"layer": i, "cosine": cosine, "dead units": dead, "fresh term variance": spread[i]} for i in range(depth + 1)]


@pytest.mark.parametrize("cosine, dead, variance, seen", [(0.995, 0.0, 0.01, "seen"), (0.5, 0.6, 0.9, "not seen")])
def test_a_statement_is_seen_where_its_rule_holds_and_nowhere_else(cosine, dead, variance, seen):
    other = 1.0 - cosine if seen == "seen" else 0.95  # what rows under SML do
    layers = [*tower("plain", 5, cosine, 0.0, variance), *tower("on", 15, other, dead, 1.0), *tower("on", 100, other, dead, 1.0)]
    towers = (("plain", 5), ("on", 15), ("on", 100))
    models = [{"variant": name, "depth": n, "moment": "start", "cosine of the head's input": other} for name, n in towers]
    everything = judge(RULES, layers, models)
    assert [row["statement"][0] for row in everything if row["variant"] == "plain"] == ["a", "a", "b", "b", "c"]
    found = [row for row in everything if (row["variant"] == "plain") == (row["statement"][0] == "a")]
    assert [row["statement"][0] for row in found] == ["a", "a", "b", "b", "c"]
    assert {row["seen"] for row in found} == {seen}
    assert [row["depth"] for row in found] == [5, 5, 15, 15, 100]
