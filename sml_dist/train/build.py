"""From a configuration and a dataset to the task on this worker's device."""

import os
import shutil

import torch
from torch import _dynamo

from sml_dist.config.run import RunConfig
from sml_dist.config.train import Precision
from sml_dist.data.dataset import Manifest
from sml_dist.embeddings.shape import field_shape
from sml_dist.embeddings.tables import embedding_tables
from sml_dist.models.zoo import build
from sml_dist.nn.native import processor
from sml_dist.spec import InputError
from sml_dist.train.task import CTRTask, Products


def make_task(manifest: Manifest, config: RunConfig, device: torch.device, precision: Precision | None = None) -> CTRTask:
    """Tables (without memory until they are sharded) and model for a dataset; the model's initial weights come from `train.seed`, its
    precision from the run unless given."""
    torch.manual_seed(config.train.seed)
    model = build(config.model, field_shape(manifest, config.embedding.dim)).to(device)
    products = products_in(precision or config.train.precision, device)
    return CTRTask(embedding_tables(manifest, config.embedding), model, manifest.features, config.embedding.dim, products)


def training_task(manifest: Manifest, config: RunConfig, device: torch.device) -> CTRTask:
    """The task to train: with `train.compile`, the default on a GPU, the model's forward and backward are compiled to fused kernels, on a
    GPU replayed as CUDA graphs.

    Evaluation and scoring are not compiled: their batches come in many sizes, each of which would be compiled anew.
    """
    task, asked = make_task(manifest, config, device), config.train.compile
    if asked or (asked is None and device.type == "cuda"):
        check_compiler(device)
        _dynamo.config.optimize_ddp = False  # one graph, whatever DDP's buckets
        task.model.compile(dynamic=False, mode="reduce-overhead")
    return task


def check_compiler(device: torch.device) -> None:
    """Raises InputError where torch.compile would find no compiler; it would say so itself at the first step, in forty lines.

    It looks for CXX, else g++; Triton, which it asks on a GPU, for CC, else gcc or clang.
    """
    variable, usual = ("CXX", ["g++"]) if device.type == "cpu" else ("CC", ["gcc", "clang"])
    if not any(map(shutil.which, [os.environ[variable]] if variable in os.environ else usual)):
        raise InputError(f"train.compile wants {' or '.join(usual)}, and this node has none; install it, or set train.compile=false")


def products_in(precision: Precision, device: torch.device) -> Products:
    """The precision of the dense part's matrix products: with `auto` bf16 where that is faster than float32. `tf32` is float32 on
    a CPU; on a GPU it is set for the process."""
    gpu = device.type == "cuda"
    if precision == "auto":
        native = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else bf16_pays_on_cpu()
        return "bf16" if native else "fp32"
    if not gpu:
        return "bf16" if precision == "bf16" else "fp32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    return precision


def bf16_pays_on_cpu() -> bool:
    """With AMX, or AVX-512's bf16 on AMD: Intel's without AMX, as in some virtual machines, multiplies bf16 at half the rate
    of float32 (429 -> 400, two cores of an Emerald Rapids, 160 GFLOP/s against 290; of an EPYC 2.4 times as fast as float32)."""
    return torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and "AuthenticAMD" in processor())
