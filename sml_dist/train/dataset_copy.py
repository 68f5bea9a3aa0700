"""What a run keeps of its dataset, so that it can score rows once that is gone: the folder `dataset`.

It holds dataset.json and vocab/ as they are, so its fingerprint is the dataset's own and `load_encoder` reads it. A vocabulary
takes some bytes a table row, where each checkpoint takes 4 for every column.
"""

from collections.abc import Callable, Iterator
from functools import partial

import fsspec

from sml_dist.data.dataset import MANIFEST, fingerprint, read_manifest
from sml_dist.spec import InputError
from sml_dist.train.checkpoint import PARTIAL, Checkpoint
from sml_dist.train.storage import CHUNK, Storage

KEPT = "dataset"


def keep_dataset(root: str, folder: Storage) -> None:
    """Copies it into the run's folder, whole or not at all, unless it is there. Raises InputError for a file that is
    gone."""
    if holds(folder.path(KEPT), fingerprint(root)):
        return
    target = f"{PARTIAL}{KEPT}"
    folder.remove(KEPT)
    folder.remove(target)
    for name in (*read_manifest(root).source.get("vocabularies", {}).values(), MANIFEST):
        folder.write(f"{target}/{name}", partial(_chunks, f"{root}/{name}", folder.beat))
    folder.rename(target, KEPT)
    folder.tried(folder.sync_folder)


def _chunks(url: str, beat: Callable[[], None]) -> Iterator[bytes]:
    try:
        with fsspec.open(url, "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
                beat()
    except FileNotFoundError:  # trying again would not help
        raise InputError(f"{url} is missing; restore the file or prepare the dataset again") from None


def holds(root: str, dataset: str) -> bool:
    """Whether a folder has the manifest of this fingerprint."""
    fs, path = fsspec.url_to_fs(root)
    return fs.exists(f"{path}/{MANIFEST}") and fingerprint(root) == dataset


def kept_dataset(checkpoint: Checkpoint) -> str:
    """Where the manifest and the vocabularies of a checkpoint's rows lie: with its run, else in the dataset. Raises InputError."""
    kept, path = places(checkpoint)
    for root in (kept, path):
        if holds(root, checkpoint.manifest["dataset"]):
            return root
    raise InputError(f"{kept} is missing, and {path} is not (any more) the dataset that {checkpoint.path} was trained on; put either back")


def places(checkpoint: Checkpoint) -> tuple[str, str]:
    """Where a checkpoint's run keeps it, and where the dataset lay."""
    run = checkpoint.storage.path("").rpartition("/")[0]
    return f"{run}/{KEPT}", checkpoint.config.data.path
