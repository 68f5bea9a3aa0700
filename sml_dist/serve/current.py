"""The model in use, and its exchange for a new one while requests are answered."""

import logging
import os
import threading
import time

from sml_dist.serve.layout import version_of
from sml_dist.serve.model import ServedModel
from sml_dist.spec import InputError, one_line

log = logging.getLogger("ray.serve")


LONGEST_WAIT = 60.0


class Current:
    """The export that `path` holds now: a folder, or a link that is moved to the next one. A thread looks every `seconds`.

    A new export is verified, loaded and tried on a row beside the old one, which serves until then and ends the requests that
    it has begun. One that is not sound is told of once; the old one stays, and the new one, which may still be on its way
    here, is tried again ever less often. Another one in its place is tried at once. `told` is the last line on this, and when.
    """

    def __init__(self, path: str, seconds: float):
        self.path, self.seconds = path, seconds
        self.model = ServedModel(path)
        self.told = (0.0, "")
        self.swaps = self.refused = 0
        self.absent = ("", 0)  # a folder without an export, and how often in a row it was found so
        self.unsound, self.wait, self.again = ("", ""), seconds, 0.0  # its folder and version; when it is tried again
        threading.Thread(target=self._watch, name="swap", daemon=True).start()

    def look(self) -> None:
        """Exchanges the model if there is another."""
        folder = os.path.realpath(self.path)
        try:
            version = version_of(folder)
        except InputError as error:
            self.absent = (folder, self.absent[1] + 1 if self.absent[0] == folder else 1)
            if self.absent[1] == 2:  # between two exports there may be none for a moment
                self._refuse(f"{error}; version {self.model.version} stays")
            return
        self.absent = ("", 0)
        known = (folder, version) == self.unsound
        if version == self.model.version or (known and time.monotonic() < self.again):
            return
        try:
            self.model = ServedModel(folder)
        except Exception as error:  # whatever a foreign folder does: the old model stays
            self.wait = min(2 * (self.wait if known else self.seconds), LONGEST_WAIT)
            self.again = time.monotonic() + self.wait
            if not known:
                self.unsound = (folder, version)
                self._refuse(f"{folder} (version {version}) is not taken, version {self.model.version} stays: {one_line(error)}")
            return
        self.swaps += 1
        self._tell(logging.INFO, f"serving {folder} (version {self.model.version})")

    def _refuse(self, line: str) -> None:
        self.refused += 1
        self._tell(logging.ERROR, line)

    def _tell(self, level: int, line: str) -> None:
        self.told = (time.time(), line)
        log.log(level, line)

    def _watch(self) -> None:
        while True:
            time.sleep(self.seconds)
            self.look()
