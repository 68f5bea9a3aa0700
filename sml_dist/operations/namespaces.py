"""A network of its own for a local cluster: each node in a network namespace, with an address that only this machine reaches."""

import os
import shutil
import subprocess
from pathlib import Path

from sml_dist.spec import InputError, spec


@spec
class Network:
    """A bridge on this machine, and for each node a namespace with one end of a cable in it."""

    bridge: str
    gateway: str  # the machine's own address on the bridge
    addresses: dict[str, str]  # of the nodes

    @classmethod
    def plan(cls, mark: str, nodes: list[str]) -> "Network":
        """Raises InputError where namespaces cannot be made."""
        if os.geteuid() or not shutil.which("ip"):
            raise InputError("network namespaces need root and the `ip` command; leave out --namespaces")
        third = int(mark[:2], 16)
        subnet = f"10.{200 + int(mark[2], 16)}.{third}"
        return cls(bridge=f"sml{mark}", gateway=f"{subnet}.1", addresses={node: f"{subnet}.{2 + i}" for i, node in enumerate(nodes)})

    @classmethod
    def left(cls, mark: str) -> "Network":
        """Of a cluster that nothing but its mark is known of: what is there of it, to be removed."""
        bridge = f"sml{mark}"
        spaces = Path("/run/netns").glob(f"{bridge}-*")  # where `ip netns` has them
        return cls(bridge=bridge, gateway="", addresses={path.name.removeprefix(f"{bridge}-"): "" for path in spaces})

    def make(self) -> None:
        """Raises InputError where the system refuses."""
        ip("link", "add", self.bridge, "type", "bridge")
        ip("address", "add", f"{self.gateway}/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        for number, (node, address) in enumerate(self.addresses.items()):
            space, outer = self.space(node), self.cable(number)
            ip("netns", "add", space)
            ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", outer, "master", self.bridge, "up")
            for command in (("address", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
                ip("-n", space, *command)
            ip("-n", space, "route", "add", "default", "via", self.gateway)

    def space(self, node: str) -> str:
        return f"{self.bridge}-{node}"

    def cable(self, number: int) -> str:
        return f"{self.bridge[3:]}v{number}"

    def inside(self, node: str, command: list[str]) -> list[str]:
        """The command, to be run in the node's namespace."""
        return ["ip", "netns", "exec", self.space(node), *command]

    def remove(self) -> None:
        """All of it that is there."""
        if not shutil.which("ip"):  # then there was none
            return
        for number, node in enumerate(self.addresses):
            subprocess.run(["ip", "link", "del", self.cable(number)], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", self.space(node)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)


def ip(*words: str) -> None:
    found = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if found.returncode:
        raise InputError(f"ip {' '.join(words)}: {found.stderr.strip()}; leave out --namespaces")
