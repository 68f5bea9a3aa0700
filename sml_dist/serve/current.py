"""The model in use, and its exchange for a new one while requests are answered."""

import logging
import threading
import time
from pathlib import Path

from sml_dist.serve.layout import version_of
from sml_dist.serve.model import ServedModel
from sml_dist.spec import InputError

log = logging.getLogger("ray.serve")


LONGEST_WAIT = 60.0


class Current:
    """The export that `path` holds now: a folder, or a link that is moved to the next one. A thread looks every `seconds`.

    A new export is verified, loaded and tried on a row beside the old one, which serves until then and ends the requests that
    it has begun. One that is not sound is told of once; the old one stays, and the new one, which may still be on its way
    here, is tried again ever less often.
    """

    def __init__(self, path: str, seconds: float):
        self.path, self.seconds = Path(path), seconds
        self.model = ServedModel(path)
        self.swaps = self.refused = 0
        self.unsound = ""
        threading.Thread(target=self._watch, name="swap", daemon=True).start()

    def look(self) -> bool:
        """Exchanges the model if there is another; whether all is well."""
        try:
            version = version_of(self.path)
        except InputError:  # between two exports there may be none for a moment
            return True
        if version == self.model.version:
            return True
        try:
            self.model = ServedModel(self.path)
        except Exception as error:  # whatever a foreign folder does: the old model stays
            if version != self.unsound:
                self.refused, self.unsound = self.refused + 1, version
                log.error(f"export {version} is not taken, {self.model.version} stays: {error}")
            return False
        self.swaps += 1
        log.info(f"now serving export {self.model.version}")
        return True

    def _watch(self) -> None:
        wait = self.seconds
        while True:
            time.sleep(wait)
            wait = self.seconds if self.look() else min(2 * wait, LONGEST_WAIT)
