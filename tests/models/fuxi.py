"""FuxiCTR 2.3.10 beside ours: its layers, and one set of weights for both. Whatever imports this is skipped where the package is absent.

The package holds layers alone; its models lie in its repository. A parity test therefore chains its layers as its model does.
`make test-parity` runs those tests.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape
from sml_dist.models.zoo import ModelConfig, build
from sml_dist.spec import from_dict

layers = pytest.importorskip("fuxictr.pytorch.layers", reason="fuxictr 2.3.10 is not installed: no published package to compare with")

FIELDS, DIM, ROWS, VOCABULARY = 5, 4, 9, 7
HIDDEN = [8, 6]
TOWER = {"hidden": HIDDEN}


class Features(nn.Module):
    """Tables of theirs for `fields` categorical and `dense` numeric features, and a batch of their input.

    `embed()` is their (B, F + N, D), a numeric feature being x_j v_j; `linear()` their first-order term (B, 1), without a bias.
    """

    def __init__(self, fields: int, dim: int, dense: int):
        super().__init__()
        self.fields = [f"c{i}" for i in range(fields)]
        self.numeric = [f"n{i}" for i in range(dense)]
        specs = {name: {"type": "categorical", "source": "", "vocab_size": VOCABULARY} for name in self.fields}
        specs |= {name: {"type": "numeric", "source": ""} for name in self.numeric}
        feature_map = SimpleNamespace(features=specs, num_fields=fields + dense)
        self.embedding = layers.FeatureEmbedding(feature_map, dim)
        self.first_order = layers.LogisticRegression(feature_map, use_bias=False)
        self.batch = {name: torch.randint(VOCABULARY, (ROWS,)) for name in self.fields}
        self.batch |= {name: torch.randn(ROWS) for name in self.numeric}
        randomize(self)

    def embed(self) -> Tensor:
        return self.embedding(self.batch)

    def linear(self) -> Tensor:
        return self.first_order(self.batch)

    def inputs(self, *, weights: bool) -> tuple[Tensor, Tensor]:
        """The same batch as ours takes it: x_BFD, whose last column is the first-order weight where asked, and dense_BN."""
        x_BFD = self.embed()[:, : len(self.fields)]
        if weights:
            x_BFD = torch.cat([x_BFD, self.first_order.embedding_layer(self.batch)[:, : len(self.fields)]], dim=2)
        dense = [self.batch[name] for name in self.numeric]
        return x_BFD, torch.stack(dense, dim=1) if dense else torch.zeros(ROWS, 0)

    def numeric_weight(self, *, weights: bool) -> Tensor:
        """(N, D) or (N, D + 1): how ours holds their vectors, and first-order weights, of numeric features."""
        tables = [self.embedding, self.first_order.embedding_layer] if weights else [self.embedding]
        columns = [[table.embedding_layer.embedding_layers[name].weight for name in self.numeric] for table in tables]
        return torch.cat([torch.cat(column, dim=1).T for column in columns], dim=1)


def randomize(module: nn.Module, std: float = 0.3) -> nn.Module:
    """Every parameter from a normal distribution, biases and scales as well, so that none can be left out unnoticed."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            nn.init.normal_(parameter, std=std)
    return module


@torch.no_grad()
def copy(theirs: nn.Module, ours: nn.Module) -> None:
    """Their weights into ours: parameter by parameter, in order, shape for shape."""
    for source, target in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert source.shape == target.shape
        target.copy_(source)


@torch.no_grad()
def copy_head(theirs: nn.Linear, *heads: nn.Module) -> None:
    """Their linear layer over concatenated blocks into the heads of ours, one a block; its bias into the one that has one."""
    for head, weight in zip(heads, theirs.weight.split([head.linear.in_features for head in heads], dim=1), strict=True):
        head.linear.weight.copy_(weight)
    (biased,) = [head for head in heads if head.linear.bias is not None]
    biased.linear.bias.copy_(theirs.bias)


def ours(dense, *, dim=DIM, **config):
    """A model with SML off whose every parameter is random, so that one left uncopied shows."""
    shape = FieldShape(fields=FIELDS, dim=dim, dense=dense)
    return randomize(build(from_dict(ModelConfig, {**config, "sml": {"enabled": False}}), shape))


def mlp(width):
    return randomize(layers.MLP_Block(width, HIDDEN))


def linear(width):
    return randomize(nn.Linear(width, 1))


def flat_input(dense):
    """For models over one flat vector: x_BFD, dense_BN, and the vector."""
    x_BFD, dense_BN = torch.randn(ROWS, FIELDS, DIM), torch.randn(ROWS, dense)
    return x_BFD, dense_BN, torch.cat([x_BFD.flatten(1), dense_BN], 1)


def agree(logit, theirs):
    torch.testing.assert_close(logit, theirs.squeeze(1), atol=1e-5, rtol=1e-5)
