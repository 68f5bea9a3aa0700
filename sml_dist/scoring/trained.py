"""A trained model in this process: from a run's folder to scores, on one device, without sharding and without Ray.

find    the checkpoint of a run, every file's hash verified
load    its weights in plain tables and a plain model, whatever plan they were trained under; its dataset's manifest, from
        which the encoder of raw rows is made
score   a batch's logits, probabilities, and what each layer adds
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sml_dist.config.run import RunConfig
from sml_dist.config.train import Precision
from sml_dist.data.dataset import Manifest, arrow_schema, read_manifest
from sml_dist.data.encode import Encoder, load_encoder
from sml_dist.data.schema import Schema
from sml_dist.embeddings.batch import Batch, Collator
from sml_dist.scoring.explain import Explained
from sml_dist.spec import InputError, from_dict
from sml_dist.train.build import make_task
from sml_dist.train.checkpoint import ANOTHER, MANIFEST, Checkpoint, Damaged, OtherFormat, read, step_name, steps, take_that_version, verify
from sml_dist.train.dataset_copy import kept_dataset
from sml_dist.train.resume import load_weights
from sml_dist.train.storage import Storage
from sml_dist.train.task import CTRTask


def find(run: str, step: int | None = None) -> Checkpoint:
    """The checkpoint of a run's best evaluation, or of a step, or the one whose folder `run` is. Raises InputError.

    Where the run has not been evaluated yet, its newest.
    """
    folder = Path(run).absolute()
    if (folder / MANIFEST).is_file():
        return sound(Storage(folder.parent), folder.name)
    storage = Storage(folder / "checkpoints")
    names = steps(storage)[::-1]
    if not names:
        raise InputError(f"{run} holds no checkpoint; name the folder of a run (run.storage/run.name) or of a checkpoint")
    if step is None:
        newest = _manifest(storage, names[-1])
        step = newest.manifest["progress"]["best_step"] or newest.manifest["step"]
    if step_name(step) not in names:
        raise InputError(f"{run} has no checkpoint of step {step}; it has {', '.join(names)}")
    return sound(storage, step_name(step))


def sound(storage: Storage, name: str) -> Checkpoint:
    """The checkpoint with every hash verified."""
    try:
        return verify(storage, name)
    except (Damaged, OtherFormat) as error:
        raise _unusable(storage, error) from None


def reopened(path: str) -> Checkpoint:
    """A checkpoint that `find` has verified, in another process."""
    return _manifest(Storage(Path(path).parent), Path(path).name)


def _manifest(storage: Storage, name: str) -> Checkpoint:
    try:
        return read(storage, name)
    except (Damaged, OtherFormat) as error:
        raise _unusable(storage, error) from None


def _unusable(storage: Storage, error: Damaged | OtherFormat) -> InputError:
    if isinstance(error, OtherFormat):
        return take_that_version(error, ANOTHER)
    return InputError(f"checkpoint {error}; name the folder of another checkpoint in {storage.path('')}")


@dataclass(frozen=True)
class Scores:
    """Of B rows, float32 on the CPU: logit (B,), of T labels (B, T), probability likewise, and where asked contributions (B, L)."""

    logit: Tensor
    probability: Tensor
    contributions: Tensor | None = None


@dataclass(frozen=True)
class Described:
    """What a checkpoint says of its run but for the weights. `dataset` is the folder that holds the manifest and the vocabularies."""

    checkpoint: Checkpoint
    config: RunConfig
    dataset: str
    manifest: Manifest

    @cached_property
    def schema(self) -> Schema:
        """Of raw logs. Raises InputError for a run on a dataset that was not made of any."""
        if "schema" not in self.manifest.source:
            raise InputError(f"{self.checkpoint.path} was trained on a dataset without a schema of raw logs; score a prepared dataset")
        return from_dict(Schema, self.manifest.source["schema"])

    @cached_property
    def encoder(self) -> Encoder:
        """Of raw rows that were cleaned under the schema."""
        encoder = load_encoder(self.dataset, self.manifest)
        if encoder.fields != self.manifest.fields:
            raise InputError(f"{self.dataset}/vocab is damaged (its fields have other rows than the manifest says); put it back")
        return encoder

    @cached_property
    def collate(self) -> Collator:
        return Collator(self.manifest)


def describe(checkpoint: Checkpoint) -> Described:
    """Raises InputError where what the run kept of its dataset is gone."""
    dataset = kept_dataset(checkpoint)
    config = checkpoint.config
    return Described(checkpoint, config, dataset, read_manifest(dataset, config.data.label))


@dataclass(frozen=True)
class Trained(Described):
    """A run's model with the weights of a checkpoint."""

    task: CTRTask
    device: torch.device

    @cached_property
    def explained(self) -> Explained:
        """The dense part with its layers' contributions, whose `names` they have."""
        batch = self.collate(blank_row(self.manifest)).to(self.device)
        with torch.no_grad():
            return Explained(self.task, self.task.embed(batch.ids), batch.dense, labels=self.manifest.labels)

    @torch.no_grad()
    def score(self, batch: Batch, *, contributions: bool = False) -> Scores:
        batch, terms = batch.to(self.device), None
        x_BFD = self.task.embed(batch.ids)
        if contributions:
            logit, terms = self.explained(x_BFD, batch.dense)
            terms = terms.cpu()
        else:
            logit = self.task(x_BFD, batch.dense)
        return Scores(logit.cpu(), torch.sigmoid(logit).cpu(), terms)


def load(checkpoint: Checkpoint, device: str | torch.device = "cpu", precision: Precision | None = None) -> Trained:
    """The model of a checkpoint, whose hashes `find` has verified. `precision` of the dense part is the run's unless given."""
    described, device = describe(checkpoint), torch.device(device)
    task = make_task(described.manifest, described.config, device, precision)
    task.tables.to_empty(device=device)
    load_weights(checkpoint, task)
    return Trained(**vars(described), task=task.eval().requires_grad_(False), device=device)


def blank_row(manifest: Manifest) -> pa.Table:
    """One row of the features of a dataset, all zero and all lists empty: fit to try a model on."""
    schema = arrow_schema(manifest.fields, manifest.dense, weight=False, group=False, timestamp=False)
    schema = schema.remove(schema.get_field_index("label"))
    return pa.table([_blank(kind.type) for kind in schema], schema=schema)


def _blank(kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(kind.list_size), kind.value_type), kind.list_size)
    return pa.array([[] if pa.types.is_list(kind) else 0], kind)
