"""Models of the zoo on one synthetic batch: Hessian eigenvalues and loss surfaces, at the start and after training."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from sml_dist.models.fields import FieldShape
from sml_dist.models.zoo import ModelConfig, build
from sml_dist.spec import spec
from sml_dist.studies.curvature import Hessian, along, top_eigenpairs
from sml_dist.studies.surface import filter_normalised, loss_surface
from sml_dist.tabular import Row

Surfaces = dict[tuple[str, str], np.ndarray]  # (model, moment) -> (grid, grid)
MOMENTS = ("start", "trained")
ALONG = 0.01  # step of the second difference; float32 logits of a mean of hundreds of rows leave it an error of about 1e-3


@spec
class TowersConfig:
    """`models` by a name for the page; without dropout, so that the loss is a function of the weights. `rate` is Adam's, full batch."""

    models: dict[str, ModelConfig]
    fields: PositiveInt = 8
    dim: PositiveInt = 8
    dense: PositiveInt = 4
    rows: PositiveInt = 2048
    steps: PositiveInt = 40
    rate: PositiveFloat = 1e-3
    eigenvalues: PositiveInt = 3
    iterations: PositiveInt = 60
    grid: Annotated[int, Field(ge=3)] = 21
    radius: PositiveFloat = 1.0


def measure_towers(config: TowersConfig, seed: int) -> tuple[list[Row], Surfaces]:
    batch, rows, surfaces = synthetic_batch(config, seed), [], {}
    for name, model_config in config.models.items():
        torch.manual_seed(seed)
        model = build(model_config, FieldShape(fields=config.fields, dim=config.dim, dense=config.dense)).eval()
        for moment in MOMENTS:
            if moment == "trained":
                fit(model, batch, config)
            loss = batch_loss(model, batch)
            surface = plane(model, loss, config, seed)
            surfaces[name, moment] = surface
            rows.append({"model": name, "moment": moment} | curvatures(model, loss, config) | shape(surface))
    return rows, surfaces


def synthetic_batch(config: TowersConfig, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normal inputs; labels drawn at a logit that has a linear part and a product of two."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    x_BFD, dense_BN = normal(config.rows, config.fields, config.dim), normal(config.rows, config.dense)
    x_BK = torch.cat([x_BFD.flatten(1), dense_BN], dim=1)
    a, b, c = (normal(x_BK.shape[1]) / x_BK.shape[1] ** 0.5 for _ in range(3))
    logit = 2 * (x_BK @ a) + 2 * (x_BK @ b) * (x_BK @ c)
    return x_BFD, dense_BN, torch.bernoulli(torch.sigmoid(logit), generator=generator)


def batch_loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Callable[[], Tensor]:
    x_BFD, dense_BN, label_B = batch
    return lambda: F.binary_cross_entropy_with_logits(model(x_BFD, dense_BN), label_B)


def fit(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor], config: TowersConfig) -> None:
    optimizer, loss = torch.optim.Adam(model.parameters(), lr=config.rate), batch_loss(model, batch)
    for _ in range(config.steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def curvatures(model: nn.Module, loss: Callable[[], Tensor], config: TowersConfig) -> Row:
    """Loss, gradient norm, the top eigenvalues, and the true loss's curvature along the first of their vectors."""
    parameters = trainable(model)
    hessian = Hessian(loss, parameters)
    pairs = top_eigenpairs(hessian, config.eigenvalues, config.iterations)
    row: Row = {"loss": loss().item(), "gradient norm": torch.nn.utils.get_total_norm(hessian.gradient).item()}
    row |= {f"eigenvalue {i + 1}": pair.value for i, pair in enumerate(pairs)}
    row["largest residual"] = max(pair.residual for pair in pairs)
    row["along vector 1"] = along(loss, parameters, pairs[0].vector, ALONG)
    return row


def plane(model: nn.Module, loss: Callable[[], Tensor], config: TowersConfig, seed: int) -> np.ndarray:
    parameters, generator = trainable(model), torch.Generator().manual_seed(seed)
    directions = (filter_normalised(parameters, generator), filter_normalised(parameters, generator))
    return loss_surface(loss, parameters, directions, np.linspace(-config.radius, config.radius, config.grid))


def shape(surface: np.ndarray) -> Row:
    """Mean rise over the centre; share of inner grid points where the plane's 2 x 2 Hessian has a negative eigenvalue."""
    middle = surface.shape[0] // 2
    daa, dbb = np.diff(surface, 2, axis=0)[:, 1:-1], np.diff(surface, 2, axis=1)[1:-1]
    dab = (surface[2:, 2:] - surface[2:, :-2] - surface[:-2, 2:] + surface[:-2, :-2]) / 4
    lowest = np.linalg.eigvalsh(np.stack([np.stack([daa, dab], -1), np.stack([dab, dbb], -1)], -1))[..., 0]
    return {"mean rise": float((surface - surface[middle, middle]).mean()), "not convex": float((lowest < 0).mean())}
