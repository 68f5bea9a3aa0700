"""Batch -> sharded embeddings -> x_BFD -> model -> logit: the forward that training, scoring and export share."""

from typing import Literal

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from sml_dist.embeddings.batch import Batch

Products = Literal["fp32", "tf32", "bf16"]


class CTRTask(nn.Module):
    """Embedding tables and a zoo model in one module, so that DMP shards the first and wraps the second in DDP.

    `tables` maps a KeyedJaggedTensor to a KeyedTensor of `fields` x (B, dim). A model of T labels hands out (B, T) where one
    of one label hands out (B,). `products` is what the model's matrix products are taken in, bf16 by autocast; weights,
    tables and the loss stay float32.
    """

    def __init__(self, tables: nn.Module, model: nn.Module, fields: list[str], dim: int, products: Products = "fp32"):
        super().__init__()
        self.tables, self.model = tables, model
        self.fields, self.dim, self.products = fields, dim, products

    def embed(self, ids: KeyedJaggedTensor) -> Tensor:
        """x_BFD in the order of `fields`: values() of a sharded collection comes in the plan's order; where that is another,
        regroup copies it into ours."""
        found = self.tables(ids)
        values = found.values() if found.keys() == self.fields else KeyedTensor.regroup([found], [self.fields])[0]
        return values.view(-1, len(self.fields), self.dim)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        """The dense part: logit (B,) float32. Training calls it through DDP, apart from `embed`: see Trainer.step."""
        model = self.model if self.training else self.model.forward  # training alone is compiled, if anything is: see build.py
        with torch.autocast(x_BFD.device.type, torch.bfloat16, enabled=self.products == "bf16"):
            return model(x_BFD, dense_BN).float()

    def logit(self, batch: Batch) -> Tensor:
        """The whole forward: (B,) float32."""
        return self(self.embed(batch.ids), batch.dense)
