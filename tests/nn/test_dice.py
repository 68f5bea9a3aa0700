"""Dice against its formula."""

import torch

from sml_dist.nn.dice import Dice


def test_in_training_the_bend_lies_where_the_batch_does_and_in_evaluation_where_batches_did():
    torch.manual_seed(0)
    dice, x = Dice(3).double(), 5 + 2 * torch.randn(64, 3, dtype=torch.float64)
    torch.nn.init.normal_(dice.alpha)
    p = torch.sigmoid((x - x.mean(0)) / x.var(0, unbiased=False).sqrt())
    torch.testing.assert_close(dice(x), p * x + (1 - p) * dice.alpha * x)
    for _ in range(200):
        dice(x)
    dice.eval()
    p = torch.sigmoid((x[:1] - x.mean(0)) / x.var(0).sqrt())
    torch.testing.assert_close(dice(x[:1]), p * x[:1] + (1 - p) * dice.alpha * x[:1])
