"""`sml-dist export RUN`: a trained model as a folder that needs none of our code (layout.py says what lies in it)."""

from pathlib import Path
from typing import Any

import torch

from sml_dist.data.dataset import table_name
from sml_dist.embeddings.shape import field_shape
from sml_dist.scoring.trained import Trained, find, load
from sml_dist.serve.card import card, card_page
from sml_dist.serve.features import Quantize, describe, write_vocabularies
from sml_dist.serve.graph import trace, write_onnx, write_pt2
from sml_dist.serve.layout import CARD, FEATURES, GRAPH, LOADER, ONNX, copy, read_manifest, seal, version_of, whole, write_json
from sml_dist.serve.tables import SHARD_BYTES, quantized, write_table
from sml_dist.spec import InputError, to_dict


def export(
    run: str,
    output: str,
    *,
    step: int | None = None,
    quantize: Quantize = "none",
    onnx: bool = True,
    licences: dict[str, str] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Writes the folder, whole or not at all, and says what it is. Raises InputError."""
    if quantize not in ("none", "int8", "int4"):
        raise InputError(f"--quantize {quantize} is not one of none, int8, int4")
    model = load(find(run, step), precision="fp32")
    with whole(output) as folder:
        write(model, folder, quantize, onnx, licences or {}, shard_bytes)
    return about(output)


def write(model: Trained, folder: Path, quantize: Quantize, onnx: bool, licences: dict[str, str], shard_bytes: int = SHARD_BYTES) -> None:
    """Everything that an export holds, into an empty folder; the manifest last."""
    program, contributions = trace(model.task.model, field_shape(model.manifest, model.config.embedding.dim), model.manifest.labels)
    write_pt2(program, folder / GRAPH)
    if onnx:
        write_onnx(program, folder / ONNX)
    shards = {}
    for field in model.manifest.tables:
        rows = quantized(weight(model, field.name), quantize)
        shards[field.name] = write_table(folder, field.name, rows, shard_bytes)
    features = describe(model, quantize, shards, contributions)
    write_json(folder / FEATURES, to_dict(features))
    write_vocabularies(model, folder)
    copy(Path(__file__).with_name("light.py"), folder / LOADER)
    made = card(model, features, licences)
    write_json(folder / CARD, made)
    (folder / "README.md").write_text(card_page(made))
    seal(folder)


def weight(model: Trained, field: str) -> torch.Tensor:
    """A field's table, (rows, D) float32."""
    return model.task.tables.embedding_bags[table_name(field)].weight.detach()


def about(folder: str) -> dict[str, Any]:
    files = read_manifest(folder)["files"]
    return {"export": folder, "version": version_of(folder), "files": len(files), "bytes": sum(file["bytes"] for file in files.values())}
