"""A worker's threads are those that it may run."""

import os

import pytest
import torch

from sml_dist.train.place import Place


@pytest.fixture
def two_cores():
    own = os.sched_getaffinity(0)
    if len(own) < 2:
        pytest.skip("this machine has one core")
    os.sched_setaffinity(0, sorted(own)[:2])
    yield sorted(own)[:2]
    os.sched_setaffinity(0, own)


def test_workers_share_the_cores_that_they_may_use_and_not_those_that_the_machine_has(two_cores):
    for cores, workers, threads in ((two_cores, 1, 2), (two_cores, 2, 1), (two_cores, 4, 1), (two_cores[:1], 1, 1)):
        os.sched_setaffinity(0, cores)
        Place(local_workers=workers).set_threads(None)
        assert torch.get_num_threads() == threads
    Place(local_workers=4).set_threads(3)
    assert torch.get_num_threads() == 3
