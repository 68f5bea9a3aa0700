"""The largest Hessian eigenvalues of a model's loss, by power iteration with Hessian-vector products.

Where a forward pass stops a gradient, as MTN does before its learner, automatic differentiation sees that input as a constant:
the products are those of the Hessian with the stopped values held, which is symmetric and is what the optimiser's gradient
belongs to, but not the Hessian of the loss as a function of the weights. `along` measures the latter in one direction.
Kinks (ReLU) count for nothing in the products and for something in `along`, whose step crosses them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Vector = list[Tensor]  # one tensor a parameter


class Hessian:
    """v -> H v of loss() at the parameters' present values; the first backward's graph is built once, so leave the weights alone."""

    def __init__(self, loss: Callable[[], Tensor], parameters: Sequence[nn.Parameter]):
        self.parameters = list(parameters)
        self.gradient = torch.autograd.grad(loss(), self.parameters, create_graph=True, materialize_grads=True)

    def __call__(self, v: Vector) -> Vector:
        pairs = [(g, part) for g, part in zip(self.gradient, v, strict=True) if g.requires_grad]
        outputs, weights = zip(*pairs, strict=True)
        return list(torch.autograd.grad(outputs, self.parameters, weights, retain_graph=True, materialize_grads=True))


@dataclass(frozen=True)
class Eigenpair:
    """`residual` is |H v - value v| / |value|: what power iteration left."""

    value: float
    vector: Vector
    residual: float


def top_eigenpairs(hessian: Hessian, count: int, iterations: int, tolerance: float = 1e-3) -> list[Eigenpair]:
    """The eigenvalues of largest magnitude, largest first, each orthogonal to those before."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(count):
        v = _unit(_without([torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in hessian.parameters], found))
        for _ in range(iterations):
            product = _without(hessian(v), found)
            value = dot(v, product)
            rest = [a - value * b for a, b in zip(product, v, strict=True)]
            residual = float(dot(rest, rest) ** 0.5 / max(abs(value), 1e-30))
            if residual < tolerance or not dot(product, product) > 0:
                break
            v = _unit(product)
        found.append(Eigenpair(float(value), v, residual))
    return found


@torch.no_grad()
def along(loss: Callable[[], Tensor], parameters: Sequence[nn.Parameter], v: Vector, step: float) -> float:
    """(f(theta + step v) - 2 f(theta) + f(theta - step v)) / step^2, all stopped gradients included."""
    values = []
    for shift in (-step, step, step):  # to one side, back, to the other
        for p, part in zip(parameters, v, strict=True):
            p.add_(part, alpha=shift)
        values.append(loss().double())
    for p, part in zip(parameters, v, strict=True):
        p.sub_(part, alpha=step)
    left, middle, right = values
    return float((left - 2 * middle + right) / step**2)


def dot(a: Vector, b: Vector) -> Tensor:
    return sum((x * y).sum() for x, y in zip(a, b, strict=True))


def _unit(v: Vector) -> Vector:
    norm = dot(v, v) ** 0.5
    return [part / norm for part in v]


def _without(v: Vector, found: list[Eigenpair]) -> Vector:
    for pair in found:
        share = dot(v, pair.vector)
        v = [part - share * other for part, other in zip(v, pair.vector, strict=True)]
    return v
