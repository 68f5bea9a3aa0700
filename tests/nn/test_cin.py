"""Laws of the compressed interaction network."""

import torch

from sml_dist.nn.cin import CIN


def test_layers_equal_a_naive_loop():
    maps, cin = (5, 2), CIN(4, (5, 2)).double()
    x0 = torch.randn(3, 4, 3, dtype=torch.float64)
    x = x0
    for count, linear, output in zip(maps, cin.layers, cin(x0), strict=True):
        weight = linear.weight.view(count, 4, x.shape[1])
        new = torch.zeros(3, count, 3, dtype=torch.float64)
        for b in range(3):
            for n in range(count):
                for i in range(x.shape[1]):
                    for j in range(4):
                        new[b, n] += weight[n, j, i] * x[b, i] * x0[b, j]
        x = new
        torch.testing.assert_close(output, x.sum(2))
    assert cin.widths == maps


def test_the_lth_layer_is_homogeneous_of_degree_l_plus_one():
    cin, x0 = CIN(4, (5, 2, 3)).double(), torch.randn(3, 4, 3, dtype=torch.float64)
    for degree, (output, scaled) in enumerate(zip(cin(x0), cin(2 * x0), strict=True), start=2):
        torch.testing.assert_close(scaled, 2**degree * output)
