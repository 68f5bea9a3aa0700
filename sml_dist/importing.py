"""Importing what is large."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """The garbage collector rests: while modules are made it walks over all of them again and again, a quarter of the time that
    torch and TorchRec take."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
