"""The folder that prepare writes: claimed before the first file, complete with `dataset.json`, emptied if it fails.

While prepare runs, and after it failed or was killed, the folder holds the file INCOMPLETE; the next prepare clears such a folder
and begins anew. The mark stays after a failure because a task that is still at work may yet write a file. Of two at once the second
is refused where the folder can be locked (held.py); elsewhere the first finds out when it ends.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import fsspec
from fsspec.implementations.local import LocalFileSystem

from sml_dist.data.dataset import MANIFEST, SPLITS, DataFile, Manifest, write_manifest
from sml_dist.data.files import PARTIAL, file_system
from sml_dist.held import FILE as LOCK
from sml_dist.held import held
from sml_dist.spec import InputError, one_line

INCOMPLETE = "INCOMPLETE"
NOTE = "sml-dist prepare is at work here, or was stopped: the next prepare into this folder clears it and begins anew."
WORK = ".work"
OURS = (*SPLITS, "rejects", "vocab", WORK)


@dataclass(frozen=True)
class Output:
    """A claimed folder; `token` tells this run from another that took the folder over."""

    root: str
    token: str

    @property
    def work(self) -> str:
        return f"{self.root}/{WORK}"


@contextmanager
def writing(root: str) -> Iterator[None]:
    """Turns what a full, read-only or failing file system raises into one line that names the folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise InputError(f"--output {root} cannot be written: {reason}; make room or name another folder, then run it again") from None


def folder_of(root: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system and path of a folder that exists or can be made. Raises InputError."""
    fs, folder = file_system(root)
    if fs.isfile(folder):
        raise InputError(f"--output {root} is a file; name a folder")
    return fs, folder


@contextmanager
def own(root: str) -> Iterator[None]:
    """Locks the folder for this command; makes it if it does not exist, and removes it again if it stays empty.

    Raises InputError if another command has it. Only folders on this machine's own file system can be locked.
    """
    fs, folder = folder_of(root)
    if not isinstance(fs, LocalFileSystem):
        yield
        return
    new = not fs.isdir(folder)
    try:
        with ExitStack() as stack:
            with writing(root):
                stack.enter_context(held(folder))
            yield
    finally:
        if new:
            with suppress(OSError):  # it is not empty
                os.rmdir(folder)


def check_free(root: str, overwrite: bool) -> None:
    """Raises InputError if the folder holds a dataset that may not be overwritten, or anything that is not prepare's."""
    fs, folder = folder_of(root)
    names = {name.rstrip("/").rsplit("/", 1)[-1] for name in fs.ls(folder, detail=False)} - {LOCK} if fs.isdir(folder) else set()
    if MANIFEST in names and not overwrite:
        raise InputError(f"--output {root} already holds a prepared dataset; name another folder, or give --overwrite to replace it")
    if names and not names & {MANIFEST, INCOMPLETE}:
        raise InputError(f"--output {root} holds files that prepare did not write (such as {min(names)}); name a new or empty folder")


@contextmanager
def claimed(root: str, overwrite: bool) -> Iterator[Output]:
    """The folder to write a dataset into, marked as unfinished, without what an earlier prepare left; emptied on failure."""
    with own(root):
        with writing(root):
            check_free(root, overwrite)
            output = _claim(root)
        try:
            yield output
        except BaseException:
            _release(output)
            raise


def _claim(root: str) -> Output:
    fs, folder = fsspec.url_to_fs(root)
    fs.makedirs(folder, exist_ok=True)
    output = Output(root, uuid.uuid4().hex)
    with fs.open(f"{folder}/{INCOMPLETE}", "w") as file:
        file.write(f"{output.token}\n{NOTE}\n")
    _remove_contents(root)
    return output


def _release(output: Output) -> None:
    """Removes what was written, all but the mark, unless another prepare has taken the folder or it cannot be written."""
    with suppress(OSError):
        if _holds(output):
            _remove_contents(output.root)


def complete(output: Output, manifest: Manifest) -> None:
    """Checks that nobody took the folder and that every file is there with its size, clears up, then writes the manifest."""
    fs, folder = fsspec.url_to_fs(output.root)
    if not _holds(output):
        raise InputError(f"another prepare has taken the folder {output.root}; let one finish, or give them different folders")
    settle(fs, folder, [*(file for split in manifest.splits.values() for file in split.files), *manifest.rejects])
    if fs.exists(f"{folder}/{WORK}"):
        fs.rm(f"{folder}/{WORK}", recursive=True)
    write_manifest(output.root, manifest)
    fs.rm(f"{folder}/{INCOMPLETE}")


def settle(fs: fsspec.AbstractFileSystem, folder: str, files: list[DataFile]) -> None:
    """Checks that every file is there with its size, then removes those of tasks that were killed."""
    fs.invalidate_cache()
    there = {path: found["size"] for path, found in fs.find(folder, detail=True).items()}
    for file in files:
        path = f"{folder}/{file.path}"
        if (size := there.get(path, 0)) != file.bytes:
            raise InputError(f"{path} has {size} bytes where {file.bytes} were written; is another process writing to this folder?")
    for path in there:
        if path.endswith(PARTIAL):
            fs.rm(path)


def _holds(output: Output) -> bool:
    fs, folder = fsspec.url_to_fs(output.root)
    try:
        with fs.open(f"{folder}/{INCOMPLETE}") as file:
            return file.readline().decode().strip() == output.token
    except FileNotFoundError:
        return False


def _remove_contents(root: str) -> None:
    """The manifest first: what is left at any moment is no complete dataset."""
    fs, folder = fsspec.url_to_fs(root)
    for name in (MANIFEST, MANIFEST + PARTIAL, *OURS):
        if fs.exists(f"{folder}/{name}"):
            fs.rm(f"{folder}/{name}", recursive=True)
