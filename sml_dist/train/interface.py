"""Gloo between nodes: each worker is reached at the address that Ray has for its node.

Gloo would ask the resolver for the host's name, and where /etc/hosts has that at 127.0.0.1 or 127.0.1.1, as Debian's does,
workers of other nodes are told to connect to themselves.
"""

import contextlib
import fcntl
import os
import socket
import struct

import ray

GET_ADDRESS = 0x8915  # SIOCGIFADDR, Linux


def take_the_nodes_interface() -> None:
    """Sets GLOO_SOCKET_IFNAME unless it is set."""
    name = interface_of(ray.util.get_node_ip_address())
    if name:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface_of(address: str) -> str | None:
    """The network interface that has this IPv4 address; None where none has, or the system is not Linux."""
    for _, name in socket.if_nameindex():
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            found = fcntl.ioctl(asked, GET_ADDRESS, struct.pack("256s", name.encode()))
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None
