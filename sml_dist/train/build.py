"""From a configuration and a dataset to the task on this worker's device."""

import torch

from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import Manifest
from sml_dist.embeddings.shape import field_shape
from sml_dist.embeddings.tables import embedding_tables
from sml_dist.models.zoo import build
from sml_dist.train.task import CTRTask


def make_task(manifest: Manifest, config: RunConfig, device: torch.device) -> CTRTask:
    """Tables (without memory until they are sharded) and model for a dataset; the model's start is `train.seed`'s."""
    torch.manual_seed(config.train.seed)
    model = build(config.model, field_shape(manifest, config.embedding.dim)).to(device)
    bf16 = use_bf16(config.train.precision, device)
    return CTRTask(embedding_tables(manifest, config.embedding), model, manifest.features, config.embedding.dim, bf16=bf16)


def use_bf16(precision: str, device: torch.device) -> bool:
    """bf16 where asked, or on `auto` where the chip multiplies it natively."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
