"""One optimiser for the run, made of three: the model's, the data_parallel tables', and the one fused into the others' backward."""

from typing import Any

import torch
from torch import Tensor, nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.optimizers import in_backward_optimizer_filter

from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.config.train import TrainConfig
from sml_dist.embeddings.optim import dense_optimizer

KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad}


class Optimizers:
    """Steps all three at their own base rate times one factor. State is named by parameter, for checkpoints."""

    def __init__(self, model: DistributedModelParallel, train: TrainConfig, embedding: EmbeddingConfig):
        named = {name: p for name, p in in_backward_optimizer_filter(model.named_parameters()) if p.requires_grad}
        tables = {name: p for name, p in named.items() if ".embedding_bags." in name}
        self.model_parameters = [p for name, p in named.items() if name not in tables]
        self.names: dict[nn.Parameter, str] = {p: name for name, p in named.items()}
        self.fused, self.clip_norm, self.table_optimizer = model.fused_optimizer, train.clip_norm, embedding.optimizer
        options = {"fused": True} if train.optimizer in ("adam", "adamw") else {}
        self.torch = [KINDS[train.optimizer](self.model_parameters, lr=train.lr, weight_decay=train.weight_decay, **options)]
        if tables:
            self.torch.append(dense_optimizer(embedding, list(tables.values())))
        self.rates = [(group, group["lr"]) for optimizer in (*self.torch, self.fused) for group in optimizer.param_groups]

    def scale(self, factor: float) -> None:
        """Sets each rate to its base times `factor`; the fused one learns of it here, before its backward."""
        for group, base in self.rates:
            group["lr"] = base * factor
        self.fused.step()

    def zero_grad(self) -> None:
        for optimizer in self.torch:
            optimizer.zero_grad(set_to_none=True)

    def norm(self) -> Tensor:
        """Of the model's gradients."""
        return nn.utils.get_total_norm([p.grad for p in self.model_parameters])

    def step(self, norm: Tensor) -> None:
        """`norm` is that of the model's gradients, which are clipped to `clip_norm`."""
        if self.clip_norm:
            nn.utils.clip_grads_with_norm_(self.model_parameters, self.clip_norm, norm)
        for optimizer in self.torch:
            optimizer.step()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Live state tensors by parameter name: loading into them is loading the optimiser."""
        own = {self.names[p]: dict(state) for optimizer in self.torch for p, state in optimizer.state.items()}
        fused: dict[str, Any] = self.fused.state_dict()["state"]
        return own | {name: dict(state) for name, state in fused.items() if state}

    def create_state(self) -> None:
        """Makes the state that torch's optimisers make at their first step, all zeros, so that there is something to load into."""
        weights = [p.detach().clone() for p in self.names]
        for p in self.names:
            p.grad = torch.zeros_like(p)
        for optimizer in self.torch:
            optimizer.step()
            for state in optimizer.state.values():
                for value in state.values():
                    value.zero_()
        with torch.no_grad():
            for p, weight in zip(self.names, weights, strict=True):
                p.copy_(weight)  # which decay has moved
        self.zero_grad()
