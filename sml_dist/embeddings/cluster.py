"""The machines that a plan is made for: those of a training run, or some that are not there."""

from dataclasses import dataclass

from sml_dist.spec import InputError

RESERVE = 0.15  # of each memory: for the model's activations and the allocator on a GPU, for data readers on a host
GLOO = 10**9  # bytes a second that a pair of workers exchanges


def links(device: str) -> dict[str, int]:
    """Bytes a second between the ranks of a node, from a rank to other nodes, and of a GPU's memory, unless somebody says otherwise.
    Left to itself the planner takes a CPU's links for NVLink."""
    between, out = (GLOO, GLOO) if device == "cpu" else (600 * 10**9, 25 * 10**9)
    return {"intra_bw": between, "inter_bw": out, "hbm_bw": 2 * 10**12}


@dataclass(frozen=True)
class Cluster:
    """`hbm` bytes of each GPU, `ddr` of each node; bandwidths in bytes a second, `inter_bw` of each rank's way to other nodes."""

    world_size: int
    local_world_size: int
    device: str
    hbm: int
    ddr: int
    intra_bw: float
    inter_bw: float
    hbm_bw: float

    def __post_init__(self) -> None:
        if self.device not in ("cuda", "cpu"):
            raise InputError(f"--device {self.device}: give cuda or cpu")
        if min(self.world_size, self.local_world_size) < 1 or self.world_size % self.local_world_size:
            raise InputError(f"--world-size {self.world_size} is not a whole number of nodes of --local-world-size {self.local_world_size}")
        for option in ("intra_bw", "inter_bw", "hbm_bw", "hbm" if self.device == "cuda" else "ddr"):
            if getattr(self, option) <= 0:
                raise InputError(f"--{option.replace('_', '-')} must be more than 0")

    @property
    def memory(self) -> int:
        """Bytes of the memory that a rank computes from."""
        return self.hbm if self.device == "cuda" else self.ddr // self.local_world_size

    @property
    def host_memory(self) -> float:
        """Bytes that a GPU's rank has besides: its share of the node's."""
        return self.ddr / self.local_world_size if self.device == "cuda" else 0

    @property
    def room(self) -> float:
        """Bytes of `memory` that a plan may fill."""
        return (1 - RESERVE) * self.memory

    @property
    def host_room(self) -> float:
        return (1 - RESERVE) * self.host_memory
