"""FBGEMM's fused rowwise Adagrad on a CPU, its backward in a kernel of ours; see rowwise_adagrad.cpp.

In a step of 106,496 lookups in 26 tables of 4.3 M rows of dim 16, FBGEMM 1.8's own takes 14.5 ms on two cores of an Intel Xeon,
as on one core; this one 1.7.
"""

import ctypes
import functools
import warnings
from pathlib import Path
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
from torch import Tensor

from sml_dist.nn.native import call, library

SOURCE = Path(__file__).with_name("rowwise_adagrad.cpp")
OPERATOR = "split_embedding_backward_codegen_rowwise_adagrad_cpu"
KINDS = {torch.int32: "int32", torch.int64: "int64"}
REGISTERED = torch.library.Library("fbgemm", "IMPL")


def compiled() -> bool:
    return library(SOURCE) is not None


@functools.cache
def take_over() -> None:
    """Replaces FBGEMM's operator by ours in this process, where there is a compiler; what ours does not do goes on to FBGEMM's."""
    if not compiled():
        return
    theirs = torch.library.get_kernel(f"fbgemm::{OPERATOR}", "CPU")

    def backward(keys: Any, *given: Any) -> None:
        if not updated(*given):
            theirs.call_boxed(keys, *given)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
        REGISTERED.impl(OPERATOR, backward, "CPU", with_keyset=True)


def updated(
    gradient: Tensor, weights: Tensor, _placements: Tensor, weight_of: Tensor, column_of: Tensor, _max_dim: int, _hash_sizes: Tensor,
    _hash_bits: int, ids: Tensor, offsets: Tensor, pooling: int, id_weights: Tensor | None, _stochastic: bool, state: Tensor,
    _state_placements: Tensor, state_of: Tensor, lr: Tensor, eps: float = 0.0, weight_decay: float = 0.0, decay_mode: int = 0,
    max_norm: float = 0.0, _output: int = 0,
) -> bool:  # fmt: skip
    """FBGEMM's arguments. Updates weights and state in place and returns True; returns False for other types than float32, weighted ids, a
    bound on a row's norm, or decay that is not L2 (which FBGEMM leaves out on a CPU).

    F features of B bags each: gradient (B, columns), columns of feature f from column_of[f] on, column_of (F + 1,); weight_of and
    state_of (F,), where the feature's table begins; offsets (F * B + 1,) into ids.
    """
    plain = gradient.dtype == weights.dtype == state.dtype == torch.float32 and ids.dtype == offsets.dtype and ids.dtype in KINDS
    if not plain or id_weights is not None or (weight_decay and decay_mode != WeightDecayMode.L2) or max_norm:
        return False
    features = column_of.numel() - 1
    tensors = [gradient.contiguous(), weights, weight_of, state, state_of, column_of, ids.contiguous(), offsets.contiguous()]
    sizes = (ctypes.c_int64(size) for size in ((offsets.numel() - 1) // features, features, gradient.shape[1]))
    rates = (ctypes.c_float(rate) for rate in (lr.item(), eps, weight_decay))
    call(SOURCE, f"rowwise_adagrad_{KINDS[ids.dtype]}", tensors, *sizes, int(pooling == PoolingMode.MEAN), *rates)
    return True
