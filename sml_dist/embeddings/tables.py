"""The embedding tables of a dataset: one for each field, unsharded and without memory until a plan places them."""

import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.data.dataset import Field, Manifest
from sml_dist.spec import InputError


def embedding_tables(manifest: Manifest, config: EmbeddingConfig, device: torch.device | str = "meta") -> EmbeddingBagCollection:
    """Tables of (rows, dim) float32, one a field, started at normal(0, init_std); multi-valued fields are pooled."""
    _check_names(manifest, config)
    return EmbeddingBagCollection([_table(field, config) for field in (*manifest.single, *manifest.multi)], device=torch.device(device))


def _table(field: Field, config: EmbeddingConfig) -> EmbeddingBagConfig:
    # one id pooled is itself; sum skips mean's division
    mean = field.multivalued and config.pooling == "mean"
    return EmbeddingBagConfig(
        name=table_name(field.name),
        num_embeddings=field.rows,
        embedding_dim=config.dim,
        feature_names=[field.name],
        pooling=PoolingType.MEAN if mean else PoolingType.SUM,
        init_fn=lambda weight: torch.nn.init.normal_(weight, std=config.init_std),
    )


def table_name(field: str) -> str:
    """Module names may hold no dot, field names may."""
    return "t_" + field.replace(".", "_")


def _check_names(manifest: Manifest, config: EmbeddingConfig) -> None:
    unknown = set(config.tables) - {field.name for field in manifest.fields}
    if unknown:
        known = ", ".join(field.name for field in manifest.fields)
        raise InputError(f"embedding.tables.{min(unknown)}: the dataset has no such field; it has {known}")
