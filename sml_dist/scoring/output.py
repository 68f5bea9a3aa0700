"""The folder that predict writes: whole files as their parts are done, `predictions.json` when all are.

    predictions.json      what was scored by what, and every file with its rows and SHA-256; the last to be written
    predictions/          part-*.parquet   key columns, logit, probability, contributions; parts and rows in the input's order
    rejects/              part-*.parquet   file, row, column, reason
    .work/                while it is not complete: job.json says for what, done/part-*.json which parts are written
    lock                  while a command writes it, where that can be held (held.py)

A part's own record is written after its files, so whoever goes on after a kill does the parts without one, and writes the same
files again under the same names where a part had got as far as that. A task that is still at work when the command has failed may
write a part into a folder that was given up: so one with .work/ but no job.json is predict's too, and the next clears it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import field
from typing import Any, Literal

from sml_dist.data.dataset import DataFile
from sml_dist.data.files import PARTIAL, file_system, write_json
from sml_dist.data.output import settle
from sml_dist.data.write import REJECTS
from sml_dist.held import FILE as LOCK
from sml_dist.spec import InputError, from_dict, one_line, spec, to_dict
from sml_dist.train.task import Products

MANIFEST = "predictions.json"
PREDICTIONS, WORK = "predictions", ".work"
JOB, DONE = f"{WORK}/job.json", f"{WORK}/done"
OURS = (MANIFEST, PREDICTIONS, REJECTS, WORK)  # in the order of their removal: what is left at any moment is not complete


@spec
class PartDone:
    """What one part became, with its rejects by column; without a row that could be scored it has no file of predictions."""

    rows_read: int
    rejected_by: dict[str, int]
    precision: Products
    files: dict[str, DataFile]


@spec
class Predictions:
    """What `predictions.json` says. `job` is all that the scores depend on but for the machine, which decides what `auto` is:
    `precision` is what the parts were scored in, None where there is no part."""

    version: Literal[1] = 1
    run: str
    checkpoint: str
    model: str
    precision: Products | None
    input: str
    columns: list[str]
    rows_read: int
    rows_scored: int
    rows_rejected: int
    rejected_by: dict[str, int] = field(default_factory=dict)
    files: list[DataFile]
    rejects: list[DataFile] = field(default_factory=list)
    job: dict[str, Any]


class Folder:
    """An output folder. Raises InputError where there is no such file system, and else what that raises."""

    def __init__(self, root: str):
        self.root = root
        self.fs, self.path = file_system(root)

    def finished(self, job: dict[str, Any]) -> Predictions | None:
        """This job's predictions where they are complete and nothing is left to write."""
        names = self._names("")
        complete = self.predictions() if MANIFEST in names and WORK not in names else None
        return complete if complete and complete.job == job else None

    def take(self, job: dict[str, Any], overwrite: bool) -> Predictions | None:
        """Makes the folder this job's, begun already or not; its predictions where they are complete.

        Raises InputError where it holds another job's that may not be overwritten, or files that are not predict's.
        """
        names = {name for name in self._names("") - {LOCK} if not name.endswith(PARTIAL)}  # which a kill may leave
        complete = self.predictions() if MANIFEST in names else None
        begun = complete.job if complete else self._record(dict[str, Any] | None, JOB)
        ours = OURS if names & {MANIFEST, WORK} or overwrite else ()
        if odd := names.difference(ours):
            raise InputError(
                f"--output {self.root} holds files that predict did not write (such as {min(odd)}); name a new or empty folder"
            )
        if begun == job and not (complete and overwrite):
            if complete and WORK in names:  # killed in its last moment
                self.fs.rm(f"{self.path}/{WORK}", recursive=True)
            return complete
        if begun is not None and not overwrite:
            state = "already holds" if complete else "was begun with"
            raise InputError(
                f"--output {self.root} {state} other rows, keys or weights; name another folder, or give --overwrite to replace it"
            )
        self._clear()
        write_json(self.fs, f"{self.path}/{JOB}", job)
        return None

    @contextmanager
    def cleared_on_failure(self) -> Iterator[None]:
        """Where no part is done nothing stays that was not there: a folder that is begun would refuse the mended command."""
        try:
            yield
        except BaseException:
            with suppress(OSError):
                if not self._names(DONE):
                    self._clear()
            raise

    def predictions(self) -> Predictions:
        return self._record(Predictions, MANIFEST)

    def done(self) -> dict[int, PartDone]:
        """The parts that are written, by their number."""
        numbers = [int(name[5:-5]) for name in self._names(DONE) if name.endswith(".json")]
        return {number: self._record(PartDone, done_name(number)) for number in sorted(numbers)}

    def book(self, number: int, part: PartDone) -> None:
        write_json(self.fs, f"{self.path}/{done_name(number)}", to_dict(part))

    def complete(self, found: Predictions) -> None:
        """Checks that every file is there with its size, writes the manifest, then clears up."""
        settle(self.fs, self.path, [*found.files, *found.rejects])
        write_json(self.fs, f"{self.path}/{MANIFEST}", to_dict(found))
        self.fs.rm(f"{self.path}/{WORK}", recursive=True)

    def _clear(self) -> None:
        names = self._names("")
        for name in OURS:
            if name in names:
                self.fs.rm(f"{self.path}/{name}", recursive=True)

    def _names(self, name: str) -> set[str]:
        path = f"{self.path}/{name}".rstrip("/")
        self.fs.invalidate_cache()
        return {found.rstrip("/").rpartition("/")[2] for found in self.fs.ls(path, detail=False)} if self.fs.isdir(path) else set()

    def _record(self, kind: Any, name: str) -> Any:
        try:
            return from_dict(kind, self._read(name))
        except ValueError as error:  # of JSON or of pydantic
            raise InputError(f"{self.path}/{name} is damaged ({one_line(error)}); remove the folder to begin anew") from None

    def _read(self, name: str) -> Any:
        """None where the file is not there."""
        path = f"{self.path}/{name}"
        return json.loads(self.fs.cat_file(path)) if self.fs.exists(path) else None


def done_name(number: int) -> str:
    return f"{DONE}/part-{number:05d}.json"
