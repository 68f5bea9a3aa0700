"""The embedding tables of a dataset: one a field, shared by its sequences, unsharded and without memory until a plan places them."""

import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.data.dataset import Field, Manifest, check_table_names, positions, table_name
from sml_dist.spec import InputError


def embedding_tables(manifest: Manifest, config: EmbeddingConfig) -> EmbeddingBagCollection:
    """Tables of (rows, dim) float32, drawn by `start_tables` (train/sharded.py); multi-valued ones are pooled, sequences are not.

    A position that a row does not have comes out as zeros, by which a model knows it: see `fields.present`.
    """
    _check(manifest, config)
    tables = [_table(field, users(field, manifest), config) for field in (*manifest.single, *manifest.multi)]
    return EmbeddingBagCollection(tables, device=torch.device("meta"))


def users(field: Field, manifest: Manifest) -> list[str]:
    """The features that look rows of the field's table up: itself, and the positions of its sequences."""
    sequences = [sequence for sequence in manifest.sequences if sequence.of == field.name]
    return [field.name, *(name for sequence in sequences for name in positions(sequence.name, sequence.length))]


def _table(field: Field, features: list[str], config: EmbeddingConfig) -> EmbeddingBagConfig:
    # one id pooled is itself; sum skips mean's division
    mean = field.multivalued and config.pooling == "mean"
    return EmbeddingBagConfig(
        name=table_name(field.name),
        num_embeddings=field.rows,
        embedding_dim=config.dim,
        feature_names=features,
        pooling=PoolingType.MEAN if mean else PoolingType.SUM,
        init_fn=lambda weight: None,
    )


def _check(manifest: Manifest, config: EmbeddingConfig) -> None:
    known = [field.name for field in manifest.tables]
    if unknown := set(config.tables) - set(known):
        raise InputError(f"embedding.tables.{min(unknown)}: the dataset has no such field; it has {', '.join(known)}")
    check_table_names(known, "the dataset")
    if manifest.sequences and not config.init_std:
        name = manifest.sequences[0].name
        raise InputError(f"embedding.init_std 0: a row of zeros would be a position that sequence {name} does not have; give more than 0")
