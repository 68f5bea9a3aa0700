import socket

import pytest

from sml_dist.train import process_group
from sml_dist.train.process_group import ProcessGroup, ProcessGroupConfig

TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def test_workers_meet_at_the_first_ones_node():
    told = {}

    class Group:
        def execute_single(self, rank, function):
            return {0: ("fd00::7", 1234)}[rank]

        def execute(self, function, *given):
            told[function] = given

    ProcessGroup().on_start(Group(), ProcessGroupConfig("gloo", 60))
    (backend, where, timeout) = told[process_group.join]
    assert (backend, where, timeout.total_seconds()) == ("gloo", "tcp://[fd00::7]:1234", 60)


def test_the_first_ones_port_is_free(monkeypatch):
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(process_group.free_address())


def test_workers_take_their_nodes_interface_before_gloo_starts(monkeypatch):
    done = []
    monkeypatch.setattr(process_group, "take_the_nodes_interface", lambda: done.append("interface"))
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *given, **more: done.append("gloo"))
    monkeypatch.setattr("ray.train.get_context", Context)
    for name in TOLD:
        monkeypatch.setenv(name, "")
    process_group.join("gloo", "tcp://127.0.0.1:1", None)
    assert done == ["interface", "gloo"]


@pytest.mark.parametrize(("usable", "taken"), [(True, "cpu:gloo,cuda:nccl"), (False, "gloo")])
def test_a_worker_whose_torch_can_use_no_gpu_joins_by_gloo_whatever_ray_counts(monkeypatch, usable, taken):
    """Builds for CPUs have no NCCL."""
    joined = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: usable)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend, *given, **more: joined.append(backend))
    monkeypatch.setattr(process_group, "take_the_nodes_interface", lambda: None)
    monkeypatch.setattr("ray.train.get_context", Context)
    for name in TOLD:
        monkeypatch.setenv(name, "")
    process_group.join("cpu:gloo,cuda:nccl", "tcp://127.0.0.1:1", None)
    assert joined == [taken]


class Context:
    def __getattr__(self, name: str):
        return lambda: 1
