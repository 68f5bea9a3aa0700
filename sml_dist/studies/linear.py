"""Deep linear networks whose layers feed the logit: their squared loss, its gradient, and how small that gradient can be.

Network. h_0 = x (d), h_i = W_i h_{i-1} (K_i), logit = sum over i in F of v_i . h_i, i = 0..L. The set F makes the head:

    direct   F = {0..L}   Skip Logit over every layer and the input itself
    hidden   F = {1..L}   Skip Logit over the layers alone, as a `Tower` under `SkipLogit` is in this package
    last     F = {L}      the plain network

With P_i = W_i ... W_1 (P_0 = I) the logit is w . x for w = sum over F of P_i' v_i. The loss is f = 1/2n sum_j (w . x_j - y_j)^2
over n rows; C = X'X/n, w* a least-squares solution, g = C (w - w*) the gradient with respect to w. As one v_0, or rank-one
matrices, already make any w, f's infimum f* is that of least squares for every head, and f - f* = 1/2 (w - w*)' C (w - w*).

Gradient. Let q_i = dlogit/dh_i: q_i = [i in F] v_i + W_{i+1}' q_{i+1}, q_{L+1} = 0, so q_0 = w. Then df/dv_i = P_i g and
df/dW_i = q_i (P_{i-1} g)', and the squared norms of these outer products add up to an identity, with no inequality yet:

    |grad f|^2 = g' M g,   M = sum_{i in F} P_i' P_i + sum_{i=1..L} |q_i|^2 P_{i-1}' P_{i-1}                          (1)

Gradient dominance. Put e = C^(1/2) (w - w*): f - f* = |e|^2 / 2, g = C^(1/2) e, and e lies in the range of C. So at every point

    |grad f|^2 >= 2 mu(W, v) (f - f*),   mu(W, v) = smallest eigenvalue of C^(1/2) M C^(1/2) on the range of C         (2)

For `direct`, 0 is in F, so M >= I (as forms), and with mu = the smallest non-zero eigenvalue of C

    |grad f|^2 >= 2 mu (f - f*)                             at every point, depth and width                            (3)

which assumes nothing of X (it may lack rank), y, the widths or the weights. It is a Polyak-Lojasiewicz inequality. mu is the
best constant that holds everywhere: with every weight 0 but v_0 = w* + t u, u its eigenvector, (3) is an equality. (2) is as
sharp: M does not depend on v_0, so for any other weights v_0 can put e along the smallest eigenvector (`hardest`).

What layers add. With s_i = the smallest singular value of P_i as a map of all of R^d (s_0 = 1), for every head

    mu(W, v) >= mu (sum_{i in F} s_i^2 + sum_{i=1..L} |q_i|^2 s_{i-1}^2)                                               (4)

For `direct` that is mu (1 + |q_1|^2 + ...). s_i > 0 needs all widths up to i to be at least d and P_i of full column rank; behind a
narrower layer s_i = 0, and what is left beyond the 1 of v_0 is the |q_1|^2 that W_1 adds, whatever the widths. For `hidden` (4) is
positive, so that the inequality holds around a point, where q_1 is not 0, or W_1 is at least d wide and of full rank.

What follows for `direct`. Every stationary point is a global minimum: there are no spurious optima and no saddles either.
Gradient flow stays within sqrt(2 (f - f*) / mu) of its start and converges to a global minimum at rate exp(-2 mu t). f's
gradient is not Lipschitz over all space, so a fixed step may be too long; steps eta with f(new) <= f - eta/2 |grad f|^2
(`descent.py` halves until that holds) give f(new) - f* <= (1 - eta mu) (f - f*) and move by 2 sqrt(2 (f - f*) / mu) at most.

What fails for the others. At 0 both gradients vanish while f > f*, so no constant is right everywhere. For `hidden` a bad
stationary point needs q_1 = 0 and W_1 g = 0, and 0 is a strict saddle: its lowest curvature is -|X'y/n|. For `last` with
L >= 2 the whole Hessian is 0 there: |grad f|^2 falls as t^2L along weights scaled by t, the slow plateau.

What this does not say. Nothing of real towers: with activations, MTN or norms w is no longer one vector for all rows. For the
logistic loss (1) still holds with g = the gradient of the convex loss in w, so a stationary point of `direct` is still a global
minimum, but there is no constant as in (3), and on separable rows no minimum at all. Nothing of generalisation, of the
non-convexity between two points, or of any optimiser but gradient steps as above. Related: Hardt and Ma, arXiv:1611.04231 (linear
residual networks near the identity); Deng et al., arXiv:2210.10725, state the theorem for skip logit networks; the derivation
here is our own and claims no more than it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Head = Literal["direct", "hidden", "last"]
HEADS: tuple[Head, ...] = ("direct", "hidden", "last")


def feeds(head: Head, depth: int) -> range:
    """F: the layers that feed the logit, 0 being the input."""
    return {"direct": range(depth + 1), "hidden": range(1, depth + 1), "last": range(depth, depth + 1)}[head]


@dataclass(frozen=True)
class Problem:
    """Rows X (n, d), y (n,); `root` (r, d) with root' root = C, r its rank; `best` w*; `floor` f*; `mu` as in (3). All float64."""

    X: Tensor
    y: Tensor
    covariance: Tensor
    root: Tensor
    best: Tensor
    floor: float
    mu: float

    @classmethod
    def of(cls, X: np.ndarray, y: np.ndarray) -> "Problem":
        covariance = X.T @ X / len(X)
        values, vectors = np.linalg.eigh(covariance)
        kept = values > values[-1] * len(values) * np.finfo(np.float64).eps * 8
        best = vectors[:, kept] @ ((vectors[:, kept].T @ (X.T @ y / len(X))) / values[kept])  # the closed form; of least norm
        root = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
        floor = float(((X @ best - y) ** 2).mean() / 2)
        return cls(*map(torch.from_numpy, (X, y, covariance, root, best)), floor, float(values[kept][0]))


def make_problem(d: int, condition: float, generator: np.random.Generator, *, rank: int | None = None) -> Problem:
    """Rows whose covariance has `rank` non-zero eigenvalues, evenly spaced in logarithm from 1 down to 1 / condition."""
    rank, rows = rank or d, 8 * d
    left = np.linalg.qr(generator.standard_normal((rows, rank)))[0]
    right = np.linalg.qr(generator.standard_normal((d, rank)))[0]
    X = np.sqrt(rows) * (left * np.geomspace(1, 1 / condition, rank) ** 0.5) @ right.T
    truth = generator.standard_normal(d) * np.sqrt(condition) / np.sqrt(d)  # so large that the least direction counts
    return Problem.of(X, X @ truth + 0.1 * generator.standard_normal(rows))


@dataclass(frozen=True)
class Nets:
    """S networks of one shape: layers[i - 1] is W_i (S, K_i, K_{i-1}); heads[i] is v_i (S, K_i) for i in F."""

    layers: list[Tensor]
    heads: dict[int, Tensor]

    @property
    def depth(self) -> int:
        return len(self.layers)

    def tensors(self) -> list[Tensor]:
        return [*self.layers, *self.heads.values()]

    def moved(self, step: Sequence[Tensor], length: Tensor | float) -> "Nets":
        """Every tensor plus length (S,) or a number times its step."""
        scale = torch.as_tensor(length, dtype=torch.float64)
        new = [p + scale.reshape(-1, *[1] * (p.dim() - 1)) * d for p, d in zip(self.tensors(), step, strict=True)]
        return Nets(new[: self.depth], dict(zip(self.heads, new[self.depth :], strict=True)))

    def scaled(self, factor: float) -> "Nets":
        return self.moved(self.tensors(), factor - 1)


def random_nets(head: Head, d: int, width: int, depth: int, scale: float, count: int, generator: torch.Generator) -> Nets:
    """Weights normal(0, scale^2 / fan-in)."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, dtype=torch.float64, generator=generator) * scale / shape[-1] ** 0.5

    widths = [d, *[width] * depth]
    return Nets([normal(o, i) for i, o in zip(widths, widths[1:], strict=False)], {i: normal(widths[i]) for i in feeds(head, depth)})


def backward_weights(nets: Nets) -> list[Tensor]:
    """q_0 .. q_L, (S, K_i) each; q_0 is w, the network as one linear map."""
    q = nets.heads[nets.depth]  # every head here feeds the last layer
    out = [q]
    for i in range(nets.depth - 1, -1, -1):
        q = (nets.layers[i].mT @ q[..., None])[..., 0]
        q = q + nets.heads[i] if i in nets.heads else q
        out.append(q)
    return out[::-1]


def excess(nets: Nets, problem: Problem) -> Tensor:
    """f - f*, (S,): from w - w*, as a difference of losses would lose the digits that matter near the optimum."""
    return excess_of(backward_weights(nets)[0], problem)


def excess_of(w: Tensor, problem: Problem) -> Tensor:
    return ((w - problem.best) @ problem.root.T).square().sum(-1) / 2


def loss(nets: Nets, problem: Problem) -> Tensor:
    """f, (S,), row by row, with nothing of the derivation in it."""
    h, logit = problem.X.expand(nets.tensors()[0].shape[0], -1, -1), 0.0  # (S, n, d)
    for i in range(nets.depth + 1):
        h = h if i == 0 else h @ nets.layers[i - 1].mT
        if i in nets.heads:
            logit = logit + (h @ nets.heads[i][..., None])[..., 0]
    return (logit - problem.y).square().mean(-1) / 2


def gradient(nets: Nets, problem: Problem) -> list[Tensor]:
    """df/dW_i = q_i (P_{i-1} g)', df/dv_i = P_i g, in the order of `Nets.tensors`."""
    q = backward_weights(nets)
    passed = [(q[0] - problem.best) @ problem.covariance]  # P_i g, (S, K_i)
    for layer in nets.layers:
        passed.append((layer @ passed[-1][..., None])[..., 0])
    layers = [q[i][..., :, None] * passed[i - 1][..., None, :] for i in range(1, nets.depth + 1)]
    return layers + [passed[i] for i in nets.heads]


def squared_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Over all tensors of each network: (S,)."""
    return sum(t.flatten(1).square().sum(1) for t in tensors)


def products(nets: Nets) -> list[Tensor]:
    """P_0 .. P_L, (S, K_i, d)."""
    count, d = nets.layers[0].shape[0], nets.layers[0].shape[2]
    out = [torch.eye(d, dtype=torch.float64).expand(count, -1, -1)]
    for layer in nets.layers:
        out.append(layer @ out[-1])
    return out


def metric(nets: Nets) -> Tensor:
    """M of (1), (S, d, d)."""
    P, q = products(nets), backward_weights(nets)
    fed = sum(P[i].mT @ P[i] for i in nets.heads)
    return fed + sum(q[i].square().sum(-1)[:, None, None] * (P[i - 1].mT @ P[i - 1]) for i in range(1, nets.depth + 1))


def local_constant(nets: Nets, problem: Problem) -> Tensor:
    """mu(W, v) of (2), (S,)."""
    return torch.linalg.eigvalsh(problem.root @ metric(nets) @ problem.root.T)[:, 0]


def layer_bound(nets: Nets, problem: Problem) -> Tensor:
    """The right side of (4), (S,)."""
    smallest, q = [_smallest_singular(P) for P in products(nets)], backward_weights(nets)
    fed = sum(smallest[i] ** 2 for i in nets.heads)
    return problem.mu * (fed + sum(q[i].square().sum(-1) * smallest[i - 1] ** 2 for i in range(1, nets.depth + 1)))


def _smallest_singular(P: Tensor) -> Tensor:
    """Over all of R^d, so 0 where P has fewer rows than columns."""
    return torch.linalg.svdvals(P)[:, -1] if P.shape[1] >= P.shape[2] else torch.zeros(P.shape[0], dtype=torch.float64)


def tightest(problem: Problem, width: int, depth: int) -> Nets:
    """The point of `direct` where (3) is an equality: every weight 0 but v_0 = w* + u."""
    d = len(problem.best)
    zero = random_nets("direct", d, width, depth, 0.0, 1, torch.Generator())
    u = torch.linalg.svd(problem.root).Vh[problem.root.shape[0] - 1]
    return Nets(zero.layers, zero.heads | {0: (problem.best + u)[None]})


def hardest(nets: Nets, problem: Problem) -> Nets:
    """`direct` networks with v_0 moved to where (2) is an equality; everything else stays."""
    vectors = torch.linalg.eigh(problem.root @ metric(nets) @ problem.root.T).eigenvectors[:, :, 0]
    wanted = problem.best + torch.linalg.lstsq(problem.root, vectors.T).solution.T
    return Nets(nets.layers, nets.heads | {0: nets.heads[0] + wanted - backward_weights(nets)[0]})


def hessian_at_zero(head: Head, problem: Problem, width: int, depth: int) -> np.ndarray:
    """Eigenvalues of f's whole Hessian where every weight is 0, ascending; by automatic differentiation, for small networks."""
    zero = random_nets(head, len(problem.best), width, depth, 0.0, 1, torch.Generator())
    shapes = [t.shape for t in zero.tensors()]
    sizes = [shape.numel() for shape in shapes]

    def f(theta: Tensor) -> Tensor:
        step = [part.reshape(shape) for part, shape in zip(theta.split(sizes), shapes, strict=True)]
        return loss(zero.moved(step, 1.0), problem).sum()

    return torch.linalg.eigvalsh(torch.func.hessian(f)(torch.zeros(sum(sizes), dtype=torch.float64))).numpy()
