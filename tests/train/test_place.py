"""Where a worker stands, and that its threads are those that it may run."""

import os
import re
import sys
from types import SimpleNamespace

import pytest
import ray.train
import torch

from sml_dist.spec import InputError
from sml_dist.train.place import Place
from sml_dist.train.worker import ray_place

CONTEXT = SimpleNamespace(get_world_rank=lambda: 3, get_world_size=lambda: 4, get_local_world_size=lambda: 2)


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


def test_a_gpus_worker_stands_on_the_gpu_that_ray_train_gives_it(monkeypatch):
    """Nobody else has imported ray.train.torch in a worker's process."""
    own, gpu = [], torch.device("cuda", 1)
    monkeypatch.delattr(ray.train, "torch", raising=False)
    monkeypatch.setitem(sys.modules, "ray.train.torch", SimpleNamespace(get_device=lambda: gpu))
    monkeypatch.setattr(torch.cuda, "set_device", own.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ray.train, "get_context", lambda: CONTEXT)
    assert ray_place("cuda") == Place(3, 4, 2, gpu) and own == [gpu]
    assert ray_place("cpu").device.type == "cpu"
    for backends, device in (("cpu:gloo,cuda:nccl", "cuda"), ("cpu:gloo,cuda:gloo", "cpu")):
        monkeypatch.setattr("torch.distributed.get_backend_config", lambda backends=backends: backends)
        assert ray_place("auto").device.type == device


def test_a_gpu_that_torch_cannot_use_is_refused_by_the_name_of_the_build(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(ray.train, "get_context", lambda: CONTEXT)
    with pytest.raises(InputError, match=rf"^train.device=cuda: torch {re.escape(torch.__version__)} on .* GPU; .*make KIND=gpu setup"):
        ray_place("cuda")
