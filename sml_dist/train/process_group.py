"""The workers' process group, as a Ray Train backend.

Ray's own makes the driver and the controller import torch, which takes over a second of each start.
"""

import contextlib
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import ray.train
from ray.train.backend import Backend, BackendConfig

from sml_dist.importing import importing
from sml_dist.train.interface import take_the_nodes_interface

LEAVE_SECONDS = 30.0


class ProcessGroup(Backend):
    """Workers meet at the first one's node before they train, and part when they end."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: "ProcessGroupConfig") -> None:
        address, port = worker_group.execute_single(0, free_address)
        meeting = f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"
        worker_group.execute(join, backend_config.backend, meeting, timedelta(seconds=backend_config.timeout_s))

    def on_shutdown(self, worker_group: Any, backend_config: "ProcessGroupConfig") -> None:
        with contextlib.suppress(ray.exceptions.GetTimeoutError):  # one that hangs is ended with its process
            ray.get(worker_group.execute_async(leave), timeout=LEAVE_SECONDS)


@dataclass
class ProcessGroupConfig(BackendConfig):
    """`backend` is torch.distributed's name, gloo where a worker's torch can use no GPU; a collective that takes longer than `timeout_s`
    fails."""

    backend: str
    timeout_s: int

    @property
    def backend_cls(self) -> type[ProcessGroup]:
        return ProcessGroup


def free_address() -> tuple[str, int]:
    """This node's, with a port that nobody listens on now."""
    address = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as free:
        free.bind(("", 0))
        return address, free.getsockname()[1]


def join(backend: str, meeting: str, timeout: timedelta) -> None:
    with importing():
        import torch
        import torch.distributed as dist
    if "nccl" in backend and not torch.cuda.is_available():  # a build for CPUs, whatever GPUs Ray counts
        backend = "gloo"
    take_the_nodes_interface()
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    told = {"RANK": rank, "WORLD_SIZE": workers, "LOCAL_RANK": context.get_local_rank(), "LOCAL_WORLD_SIZE": context.get_local_world_size()}
    os.environ.update({name: str(value) for name, value in told.items()})  # as torchrun does; TorchRec reads some of them
    dist.init_process_group(backend, meeting, timeout, rank=rank, world_size=workers)


def leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.destroy_process_group()
