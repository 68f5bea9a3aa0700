"""Faster imports of large modules."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Switches the garbage collector off for the imports within: its passes over ever more objects take a quarter of the time of
    importing torch and TorchRec."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
