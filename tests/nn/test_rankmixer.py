"""Laws of RankMixer's layers."""

import torch
from torch.nn import functional as F

from sml_dist.nn.rankmixer import PerTokenFFN, RankMixerLayer, RankMixerStack, mix_tokens
from sml_dist.nn.sml import SMLConfig
from tests.nn.random_weights import randomized

OFF = SMLConfig(enabled=False)


def draw() -> torch.Tensor:
    return torch.randn(5, 3, 6, dtype=torch.float64)


def test_mixed_tokens_equal_a_naive_loop_over_slices():
    x = draw()
    y = mix_tokens(x)
    for b in range(5):
        for h in range(3):
            torch.testing.assert_close(y[b, h], torch.cat([x[b, t, 2 * h : 2 * h + 2] for t in range(3)]))


def test_mixing_twice_is_not_mixing():
    x = draw()
    assert torch.equal(mix_tokens(mix_tokens(x)), x) and not torch.equal(mix_tokens(x), x)


def test_a_tokens_network_equals_a_naive_loop_and_is_its_own():
    ffn, x = randomized(PerTokenFFN(3, 6, 2, OFF)), draw()
    y = ffn(x)
    for b in range(5):
        for t in range(3):
            hidden = [sum(x[b, t, i] * ffn.expand.weight[t, i, o] for i in range(6)) + ffn.expand.bias[t, o] for o in range(12)]
            hidden = F.gelu(torch.stack(hidden))
            out = [sum(hidden[i] * ffn.contract.weight[t, i, o] for i in range(12)) + ffn.contract.bias[t, o] for o in range(6)]
            torch.testing.assert_close(y[b, t], torch.stack(out))


def test_a_layer_norms_after_each_of_its_two_residuals():
    layer, x = randomized(RankMixerLayer(3, 6, 2, OFF)), draw()
    s = F.layer_norm(mix_tokens(x) + x, (6,), layer.mix_norm.weight, layer.mix_norm.bias)
    expected = F.layer_norm(layer.ffn(s) + s, (6,), layer.ffn_norm.weight, layer.ffn_norm.bias)
    torch.testing.assert_close(layer(x), expected)


def test_a_stack_hands_out_the_mean_token_of_every_layer():
    stack, x = randomized(RankMixerStack(3, 6, 2, 2, OFF)), draw()
    first = stack.layers[0](x)
    expected = [first.mean(1), stack.layers[1](first).mean(1)]
    assert stack.widths == (6, 6)
    for output, mean in zip(stack(x), expected, strict=True):
        torch.testing.assert_close(output, mean)
