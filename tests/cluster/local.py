"""Commands of the project against a local cluster of the test's own, as a user runs them."""

import contextlib
import json
import os
import pty
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sml_dist.operations.local_cluster import MARK, NODE_MARK, LocalCluster
from sml_dist.operations.processes import marked

CANARY = f"canary-{secrets.token_hex(8)}"  # made anew: the checkout that is searched for it holds this file
WAIT_SECONDS = 300.0


class Shell:
    """`sml-dist` in a folder, with a secret in its environment."""

    def __init__(self, folder: Path):
        self.folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = inherited | {"WANDB_API_KEY": CANARY, "COLUMNS": "200"}
        self.environment["PYTHONPATH"] = str(folder)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "sml_dist.cli", *words]

    def run(self, *words: str, status: int = 0) -> str:
        """The standard output of a command that ends with this status."""
        found = subprocess.run(
            self.command(*words), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
        )
        assert found.returncode == status, f"{words}: {found.returncode}\n{found.stdout[-2000:]}\n{found.stderr[-4000:]}"
        return found.stdout if status == 0 else found.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def interrupted(self, *words: str, after: str, answer: str) -> tuple[int, str]:
        """Runs a command on a terminal, presses Ctrl-C when it has shown `after`, and answers what it asks then."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.folder)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell leaves ignored in what it starts in the background
            os.execve(sys.executable, self.command(*words), self.environment)
        shown = read_until(terminal, after)
        os.kill(pid, signal.SIGINT)
        shown += read_until(terminal, "[y/N]")
        os.write(terminal, f"{answer}\n".encode())
        shown += read_until(terminal, None)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def read_until(terminal: int, text: str | None) -> str:
    """What a terminal shows until it has shown the text, or to its end."""
    shown = ""
    while text is None or text not in shown:
        try:
            new = os.read(terminal, 65_536).decode(errors="replace")
        except OSError:  # the program has ended
            new = ""
        if not new:
            assert text is None, f"{text!r} was not shown: {shown[-3000:]}"
            return shown
        shown += new
    return shown


def until(happened: Callable[[], Any], what: str) -> Any:
    """The value, once there is one."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (value := happened()):
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS:g} s for {what}"
        time.sleep(0.2)
    return value


def processes(cluster: LocalCluster) -> list[int]:
    return marked(MARK, cluster.mark)


def listening(cluster: LocalCluster) -> set[tuple[str, int]]:
    """(address, port) of the TCP sockets at which a cluster's processes listen and this machine reaches them, by the kernel's books."""
    found = set()
    for node in cluster.nodes:
        own = cluster.network.addresses[node] if cluster.network else "127.0.0.1"
        for pid in marked(NODE_MARK, f"{cluster.mark}-{node}"):
            found |= {(own if address == "0.0.0.0" else address, port) for address, port in listening_of(pid)}
    return {(address, port) for address, port in found if not cluster.network or address != "127.0.0.1"}


def listening_of(pid: int) -> set[tuple[str, int]]:
    owned, found = sockets(pid), set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):  # the process has ended
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == "0A" and f"socket:[{rest[5]}]" in owned:
                    host, port = local.split(":")
                    # of IPv6 those that hold an IPv4 address; each four bytes stand in this machine's order
                    found.add((".".join(str(byte) for byte in bytes.fromhex(host[-8:])[::-1]), int(port, 16)))
    return found


def sockets(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(link))
    return found
