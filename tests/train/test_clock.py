"""Where the time goes."""

import time

from sml_dist.train.clock import Clock


def test_phases_add_up_to_the_time_since_the_clock_was_made(monkeypatch):
    now = iter([10.0, 11.0, 13.0, 13.5, 20.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = Clock()
    for phase in ("data_wait", "dense_forward", "data_wait"):
        clock.enter(phase)
    assert list(clock.seconds().items()) == [("data_wait", 8.5), ("start", 1.0), ("dense_forward", 0.5)]
    assert sum(clock.spent.values()) == 10.0
