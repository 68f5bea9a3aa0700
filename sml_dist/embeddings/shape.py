"""What a model knows of a dataset. Apart from the tables, as a driver without torchrec needs it too."""

from sml_dist.data.dataset import Manifest
from sml_dist.models.fields import FieldShape, SequenceShape


def field_shape(manifest: Manifest, dim: int) -> FieldShape:
    single = [field.name for field in manifest.single]
    sequences = tuple(SequenceShape(target=single.index(field.of), length=field.length) for field in manifest.sequences)
    return FieldShape(fields=len(manifest.features), dim=dim, dense=len(manifest.dense), sequences=sequences, labels=len(manifest.labels))
