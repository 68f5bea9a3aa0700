"""Batch -> sharded embeddings -> x_BFD -> model -> logit: the forward that training, scoring and export share."""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from sml_dist.embeddings.batch import Batch
from sml_dist.train.exchange import Exchange

Products = Literal["fp32", "tf32", "bf16"]


class CTRTask(nn.Module):
    """Embedding tables and a zoo model in one module, so that DMP shards the first and wraps the second in DDP.

    `tables` maps a KeyedJaggedTensor to a KeyedTensor of `fields` x (B, dim). A model of T labels returns (B, T), one of one label (B,).
    `products` is the precision of the model's matrix products, bf16 by autocast; weights, tables and the loss stay float32.
    """

    def __init__(self, tables: nn.Module, model: nn.Module, fields: list[str], dim: int, products: Products = "fp32"):
        super().__init__()
        self.tables, self.model = tables, model
        self.fields, self.dim, self.products = fields, dim, products

    def embed(self, ids: KeyedJaggedTensor | Exchange) -> Tensor:
        """x_BFD in the order of `fields`: values() of a sharded collection comes in the plan's order."""
        found = ids.embeddings() if isinstance(ids, Exchange) else self.tables(ids)
        x_BFD = found.values().view(-1, len(self.fields), self.dim)
        return x_BFD if found.keys() == self.fields else in_order(x_BFD, found.keys(), self.fields)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        """The dense part: logit (B,) or (B, T) float32. Training calls it through DMP, apart from `embed`: see Trainer.step."""
        model = self.model if self.training else self.model.forward  # only training is compiled, if anything: see build.py
        with torch.autocast(x_BFD.device.type, torch.bfloat16, enabled=self.products == "bf16"):
            return model(x_BFD, dense_BN).float()

    def logit(self, batch: Batch) -> Tensor:
        """The whole forward: (B,) or (B, T) float32."""
        return self(self.embed(batch.ids), batch.dense)


def in_order(x_BFD: Tensor, has: list[str], wanted: list[str]) -> Tensor:
    """The fields of x, which `has` names, in the order of `wanted`; on a CPU in a quarter of the time of KeyedTensor.regroup."""
    return Reordered.apply(x_BFD, *orders(tuple(has), tuple(wanted), x_BFD.device))


@lru_cache(maxsize=8)
def orders(has: tuple[str, ...], wanted: tuple[str, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each wanted field stands, and the inverse of that."""
    order_F = torch.tensor([has.index(name) for name in wanted])
    return order_F.to(device), order_F.argsort().to(device)


class Reordered(Function):
    """x[:, order]; its gradient is taken by the inverse, where autograd would add it into zeros."""

    @staticmethod
    def forward(ctx, x_BFD: Tensor, order_F: Tensor, inverse_F: Tensor) -> Tensor:
        ctx.save_for_backward(order_F, inverse_F)
        return x_BFD.index_select(1, order_F)

    @staticmethod
    def backward(ctx, dy_BFD: Tensor) -> tuple[Tensor, None, None]:
        order_F, inverse_F = ctx.saved_tensors
        return Reordered.apply(dy_BFD, inverse_F, order_F), None, None
