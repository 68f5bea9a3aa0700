"""Gated experts against a loop over experts and tasks."""

import torch

from sml_dist.nn.experts import GatedExperts
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import TowerConfig


def test_each_task_mixes_every_layer_of_all_experts_by_its_own_gate():
    torch.manual_seed(0)
    experts = GatedExperts(4, experts=3, tasks=2, config=TowerConfig(hidden=(6, 5)), sml=SMLConfig(enabled=False)).double()
    x = torch.randn(7, 4, dtype=torch.float64)
    found = experts(x)
    for task, gate in enumerate(experts.gates):
        for layer, width in enumerate((6, 5)):
            expected = torch.zeros(7, width, dtype=torch.float64)
            for b in range(7):
                scores = [(gate.weight[e] @ x[b]).item() for e in range(3)]
                shares = torch.tensor(scores, dtype=torch.float64).softmax(0)
                for e, expert in enumerate(experts.experts):
                    expected[b] += shares[e] * expert(x[b : b + 1])[layer][0]
            torch.testing.assert_close(found[task][layer], expected)
