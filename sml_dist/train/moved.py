"""What stands in other places in a new dataset than in an old one, and which of a model's tensors read it by its place.

Those are the tensors whose shape changes where the model is built for more of it. A model that then has other tensors altogether (one more
label's tower, a projection where the width was right without one) may read places in any layer, so all of its tensors count.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import Manifest
from sml_dist.embeddings.shape import field_shape
from sml_dist.models.fields import FieldShape, SequenceShape
from sml_dist.models.zoo import build

MORE = 1000  # enough to widen each of RankMixer's slices, whose width is rounded up


def moved_inputs(config: RunConfig, manifest: Manifest, old: Manifest) -> tuple[list[str], set[str]]:
    """What has moved since the old dataset, and the tensors of the run's model that read it by its place."""
    shape = field_shape(manifest, config.embedding.dim)
    moved = dict(shapes_with_more(shape, manifest, old))
    return [*moved], set().union(*(readers(config.model, shape, more) for more in moved.values()))


def shapes_with_more(shape: FieldShape, manifest: Manifest, old: Manifest) -> Iterator[tuple[str, FieldShape]]:
    """What has moved since the old dataset, each with `shape`, the new one's, as it would be with more of that.

    Sequences and labels that come or go at the end move no others.
    """
    wider = replace(shape, fields=shape.fields + MORE)
    if [field.name for field in old.single + old.multi] != [field.name for field in manifest.single + manifest.multi]:
        yield "fields", wider
    if manifest.dense and old.dense != manifest.dense:
        yield "numeric values", replace(shape, dense=shape.dense + MORE)
    if [field.length for field in old.sequences] != [field.length for field in manifest.sequences]:
        longer = tuple(replace(each, length=each.length + MORE) for each in shape.sequences)
        yield "lengths of sequences", replace(shape, fields=shape.fields + MORE * max(1, len(longer)), sequences=longer)
    if differ([(field.name, field.of) for field in old.sequences], [(field.name, field.of) for field in manifest.sequences]):
        yield "sequences", replace(wider, sequences=(*shape.sequences, SequenceShape(target=0, length=MORE)))
    if shape.labels > 1 and differ(old.labels, manifest.labels):
        yield "labels", replace(shape, labels=shape.labels + 1)


def differ(old: list[Any], new: list[Any]) -> bool:
    """In the places that both have."""
    return any(a != b for a, b in zip(old, new, strict=False))


def readers(model: Any, shape: FieldShape, more: FieldShape) -> set[str]:
    """The tensors of a model for `shape` that read by its place what `more` has more of."""
    now, then = tensors(model, shape), tensors(model, more)
    return {name for name in now if now.keys() != then.keys() or now[name] != then[name]}


def tensors(model: Any, shape: FieldShape) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build(model, shape).state_dict().items()}
