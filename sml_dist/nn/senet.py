"""Squeeze and excitation over fields."""

from torch import Tensor, nn


class SENet(nn.Module):
    """y_i = a_i x_i, a = relu(W_2 relu(W_1 z)), z_i = mean_d x_id; (B, F, D) -> (B, F, D).

    Weighs the fields of each row by what all of them are, through F / reduction units (Huang et al., arXiv:1905.09433).
    """

    def __init__(self, fields: int, reduction: int):
        super().__init__()
        units = max(1, fields // reduction)
        first, second = nn.Linear(fields, units, bias=False), nn.Linear(units, fields, bias=False)
        nn.init.xavier_normal_(first.weight)
        # From units >= 0, negative weights alone would give a field a weight of 0 in every row, and no gradient to leave it.
        nn.init.xavier_normal_(second.weight).data.abs_()
        self.excite = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

    def forward(self, x_BFD: Tensor) -> Tensor:
        return x_BFD * self.excite(x_BFD.mean(2)).unsqueeze(2)
