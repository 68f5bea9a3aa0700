"""The interaction of factorisation machines."""

from torch import Tensor


def pairwise_sum(x_BFD: Tensor) -> Tensor:
    """sum_{i<j} <x_i, x_j> = 1/2 sum_d [(sum_i x_id)^2 - sum_i x_id^2]; (B, F, D) -> (B,).

    All F (F - 1) / 2 pairs at the cost of F (Rendle, Factorization Machines, ICDM 2010). It has no parameters: what is
    learned are the x_i, and the logit gets the sum as it is.
    """
    return 0.5 * (x_BFD.sum(1).square() - x_BFD.square().sum(1)).sum(1)
