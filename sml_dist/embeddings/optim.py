"""The tables' optimisers: fused into FBGEMM's backward for sharded tables, torch's own for data_parallel ones."""

from typing import Any

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.embeddings import rowwise_adagrad
from sml_dist.spec import InputError

FUSED = {
    "sgd": EmbOptimType.EXACT_SGD,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    "adam": EmbOptimType.ADAM,
}
DENSE = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "rowwise_adagrad": RowWiseAdagrad, "adam": torch.optim.Adam}


def fused_params(config: EmbeddingConfig) -> dict[str, Any]:
    """What FBGEMM's fused kernels need to know; see check_l2 for the decay that they lack. Ids are checked by the Collator."""
    params: dict[str, Any] = {"optimizer": FUSED[config.optimizer], "learning_rate": config.lr, "eps": config.eps}
    params["bounds_check_mode"] = BoundsCheckMode.NONE
    return params | ({"weight_decay": config.l2, "weight_decay_mode": WeightDecayMode.L2} if config.l2 else {})


def check_l2(config: EmbeddingConfig, fused: list[str], device: str) -> None:
    """Raises InputError where FBGEMM would decay a table of `fused` differently from torch's optimisers, or not at all.

    It ignores decay under SGD and Adagrad, and on a CPU under rowwise Adagrad too, where only our kernel in its place does it
    (rowwise_adagrad.py); under Adam it decays apart from the gradient.
    """
    if not config.l2 or not fused or (config.optimizer == "rowwise_adagrad" and (device == "cuda" or rowwise_adagrad.compiled())):
        return
    what = {"adam": "is another decay", "rowwise_adagrad": "wants a C++ compiler (g++)"}.get(config.optimizer, "has no effect")
    better = "" if config.optimizer == "rowwise_adagrad" else "embedding.optimizer=rowwise_adagrad or "
    raise InputError(
        f"embedding.l2 {what} under a fused {config.optimizer} (table {fused[0]}); set {better}embedding.sharding=data_parallel"
    )


def states(rows: int, dim: int, optimizer: str) -> int:
    """Numbers of optimiser state of a table or shard."""
    return {"sgd": 0, "rowwise_adagrad": rows, "adagrad": rows * dim, "adam": 2 * rows * dim}[optimizer]


def dense_optimizer(config: EmbeddingConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of data_parallel tables: the same formula as the fused one, over all rows."""
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.l2}
    if config.optimizer != "sgd":
        options["eps"] = config.eps
    if config.optimizer == "adam":
        options["fused"] = True
    return DENSE[config.optimizer](parameters, **options)
