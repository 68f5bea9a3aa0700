"""Laws of squeeze and excitation."""

import pytest
import torch

from sml_dist.nn.senet import SENet


def test_weights_equal_a_loop_over_fields():
    senet, x = SENet(6, 3).double(), torch.randn(5, 6, 3, dtype=torch.float64)
    torch.nn.init.normal_(senet.excite[2].weight)
    first, second = senet.excite[0].weight, senet.excite[2].weight
    y = senet(x)
    for b in range(5):
        z = [sum(x[b, i, d] for d in range(3)) / 3 for i in range(6)]
        units = [torch.clamp(sum(first[u, i] * z[i] for i in range(6)), min=0) for u in range(2)]
        for i in range(6):
            a = torch.clamp(sum(second[i, u] * units[u] for u in range(2)), min=0)
            torch.testing.assert_close(y[b, i], a * x[b, i])


@pytest.mark.parametrize("seed", range(20))
def test_no_field_starts_out_of_reach(seed):
    torch.manual_seed(seed)
    x = torch.randn(100, 4, 3)
    assert (SENet(4, 3)(x).abs().sum((0, 2)) > 0).all()


def test_few_fields_keep_one_unit():
    assert SENet(2, 3).excite[0].out_features == 1
