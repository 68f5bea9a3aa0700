"""What a worker's watchdog may do."""

import contextlib
import sys
from types import SimpleNamespace

import pytest

from sml_dist.train.watchdog import PR_SET_PTRACER, Watchdog


@pytest.mark.skipif(sys.platform != "linux", reason="Yama is Linux's")
def test_a_worker_lets_its_watchdog_look_into_it(tmp_path, monkeypatch):
    """Where Yama lets nobody but a process's ancestors, the stack in test_slow_storage.py is missing without this; elsewhere nothing is."""
    told = []
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(prctl=lambda *given: told.append(given)))
    with contextlib.closing(Watchdog(tmp_path / "stacks", 0, 5.0)) as watchdog:
        assert told == [(PR_SET_PTRACER, watchdog.process.pid, 0, 0, 0)]
