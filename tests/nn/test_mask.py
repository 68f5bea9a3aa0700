"""Laws of MaskNet's blocks."""

import pytest
import torch

from sml_dist.nn.mask import FieldNorm, MaskBlock, ParallelMaskBlocks, SerialMaskBlocks
from sml_dist.nn.sml import SMLConfig
from tests.nn.random_weights import randomized

OFF = SMLConfig(enabled=False)


def draw(*shape) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_a_field_norm_equals_a_naive_loop():
    norm, x = randomized(FieldNorm(3, 4)).eval(), draw(5, 3, 4)
    y = norm(x)
    for b in range(5):
        for f in range(3):
            mean = sum(x[b, f]) / 4
            std = (sum((v - mean) ** 2 for v in x[b, f]) / 4 + 1e-5) ** 0.5
            for d in range(4):
                torch.testing.assert_close(y[b, f, d], norm.weight[f, d] * (x[b, f, d] - mean) / std + norm.bias[f, d])


def test_a_mask_block_equals_a_naive_loop():
    block = randomized(MaskBlock(guide=6, inputs=4, outputs=3, ratio=1.5, dropout=0.5, sml=OFF)).eval()
    guide, x = draw(5, 6), draw(5, 4)
    y = block(guide, x)
    v, _, u = block.mask
    linear, norm = block.hidden[0], block.hidden[1]
    assert v.out_features == 6  # 1.5 * 4
    for b in range(5):
        aggregates = [max(v.bias[i] + sum(v.weight[i, j] * guide[b, j] for j in range(6)), torch.zeros(())) for i in range(6)]
        mask = [u.bias[k] + sum(u.weight[k, i] * aggregates[i] for i in range(6)) for k in range(4)]
        h = [sum(linear.weight[o, k] * mask[k] * x[b, k] for k in range(4)) for o in range(3)]
        mean = sum(h) / 3
        std = (sum((value - mean) ** 2 for value in h) / 3 + 1e-5) ** 0.5
        for o in range(3):
            expected = norm.weight[o] * (h[o] - mean) / std + norm.bias[o]
            torch.testing.assert_close(y[b, o], expected.clamp(min=0))


@pytest.mark.parametrize("blocks", [SerialMaskBlocks, ParallelMaskBlocks])
def test_serial_blocks_read_the_block_before_and_parallel_blocks_the_input(blocks):
    stack = randomized(blocks(guide=6, inputs=4, widths=(5, 3), ratio=1.0, dropout=0.0, sml=OFF)).eval()
    guide, x = draw(7, 6), draw(7, 4)
    outputs = stack(guide, x)
    assert [tuple(h.shape) for h in outputs] == [(7, width) for width in stack.widths]
    first = stack.blocks[0](guide, x)
    torch.testing.assert_close(outputs[0], first)
    torch.testing.assert_close(outputs[1], stack.blocks[1](guide, first if blocks is SerialMaskBlocks else x))


def test_every_block_is_guided_by_the_guide():
    stack = randomized(SerialMaskBlocks(guide=6, inputs=4, widths=(5, 3), ratio=1.0, dropout=0.0, sml=OFF)).eval()
    first = draw(7, 5)
    assert not torch.equal(stack.blocks[1](draw(7, 6), first), stack.blocks[1](draw(7, 6), first))
