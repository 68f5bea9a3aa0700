"""Joins a Ray cluster that is named, or starts a local one that asks for a token."""

import contextlib
import importlib
import ipaddress
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from sml_dist.bare_ray import bare, replaced
from sml_dist.spec import InputError, one_line

REACH_SECONDS = 10.0
OBJECT_STORE_BYTES = 2 << 30  # of a local Ray, where this is more than a sixteenth of memory; streams bound what they keep in it

# What raylets tell every driver and no user can act on: that many actors run, and that Ray Serve's controller, which was asked to end or
# for news, has ended.
NOISE = (
    "PYTHON worker processes have been started",
    "Task ServeController.graceful_shutdown failed",
    "Task ServeController.listen_for_change failed",
)

# Environment of the processes of a local Ray; on a cluster, set it for the nodes.
LOCAL_ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # Ray's 15 lets any other process on the machine starve the training
    # glibc gives freed memory back to the system, each step's tensors fault it in again, and Ray Train trains in a thread,
    # whose arena shrinks most eagerly. Kept instead: DCN-V2 with SML in a thread, two cores, from 55,000 to 69,000 samples/s.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    # A team of threads whose work is done spins some milliseconds for more, on cores that readers and Ray wait for.
    "GOMP_SPINCOUNT": "10000",
}

# Also of a Ray that ends with its command: ALONE tells train/controller.py so, and the raylet asks every 20 ms, not every
# second, whether the object store is up.
ALONE = "SML_DIST_ALONE"
ALONE_ENVIRONMENT = {
    ALONE: "1",
    "RAY_raylet_client_connect_timeout_milliseconds": "20",
    "RAY_raylet_client_num_connect_attempts": "1000",
}


@contextlib.contextmanager
def ray_session(workers: int = 0, *, reader_cpus: float = 0.5, verbose: bool = False, meanwhile: str | None = None) -> Iterator[None]:
    """Ray for one command: the cluster that RAY_ADDRESS names, else a local one that ends with the command.

    A local one gets more logical CPUs than the machine has cores if the workers would leave none for the readers.
    `meanwhile`: a module to import while Ray starts, which is mostly waiting. Ray's own messages go to standard error, since
    standard output is for results.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from joblib import cpu_count  # what a container may use, not what its machine has

    if ray.is_initialized():
        yield
        return
    if meanwhile:
        threading.Thread(target=importlib.import_module, args=(meanwhile,), daemon=True).start()
    quiet = {"log_to_driver": verbose, "logging_level": "info" if verbose else "error"}
    with contextlib.redirect_stdout(sys.stderr), contextlib.nullcontext() if verbose else without_noise():
        if address := os.environ.get("RAY_ADDRESS"):
            _join(address, **quiet)
        else:
            ask_for_token()
            cpus = max(cpu_count(), workers + int(4 * workers * reader_cpus) + 1)
            with environment(LOCAL_ENVIRONMENT | ALONE_ENVIRONMENT), bare(logs=verbose):
                ray.init("local", num_cpus=cpus, object_store_memory=_object_store(), include_dashboard=False, **quiet)
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Keeps NOISE from the terminal; the rest of what raylets tell, such as which workers ran out of memory, is shown."""
    from ray._private import worker

    show = worker.print_to_stdstream
    with replaced(worker, "print_to_stdstream", lambda data, *how, **more: noise(data) or show(data, *how, **more)):
        yield


def noise(data: dict[str, Any]) -> bool:
    return any(each in line for line in data["lines"] for each in NOISE)


def check_cpus(cpus: float) -> None:
    """Raises InputError if no node of a local Ray has so many CPUs: Ray would wait for ever. A cluster may still grow, so it passes."""
    import ray

    largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    if not os.environ.get("RAY_ADDRESS") and cpus > largest:
        raise InputError(
            f"cpus {cpus:g}: the largest node has {largest:g}, and Ray would wait for ever; lower it with --set cpus={largest:g}"
        )


@contextlib.contextmanager
def environment(values: dict[str, str], *, override: bool = False) -> Iterator[None]:
    """Sets these variables for the processes started within; those that the user has set stay, unless overridden.

    Restores the environment at the end: Ray Train passes what it finds in the driver's environment to its actors as a runtime
    environment, and then they wait for new processes instead of taking those that Ray has ready.
    """
    before = {name: os.environ.get(name) for name in values if override or name not in os.environ}
    os.environ.update({name: values[name] for name in before})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def ask_for_token() -> None:
    """Has the Ray that this process starts require a token that only its own processes know: its ports are open to the network.

    A token of the environment is a cluster's, and its file may be gone as the cluster is.
    """
    from ray._raylet import AuthenticationTokenLoader, Config

    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
    Config.initialize("")  # Ray read these variables when it was imported; these have it read them again
    AuthenticationTokenLoader.instance().reset_cache()


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is one that other machines cannot reach."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _join(address: str, **how: Any) -> None:
    """Joins the Ray at an address. Raises InputError if none answers there: Ray itself would try for over eight minutes."""
    import ray
    from ray._private.services import canonicalize_bootstrap_address

    if address.startswith(("http://", "https://")):
        way_out = "name the head's own, HOST:6379, or give this one to sml-dist submit --address"
        raise InputError(f"RAY_ADDRESS {address}: this is a dashboard's address; {way_out}")
    try:
        if "://" not in address:
            found = canonicalize_bootstrap_address(address)  # of auto: that of the Ray started here last, which may have died
            if found is None:
                raise ConnectionError("none runs on this machine")
            host, _, port = found.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
        ray.init(address=address, **how)
    except (ValueError, OSError, RuntimeError) as error:
        way_out = "name the head's HOST:PORT, or unset it for one of this machine's own"
        raise InputError(f"RAY_ADDRESS {address}: cannot join a Ray there ({one_line(error)}); {way_out}") from None


def _object_store() -> int:
    """Bytes for a local object store: a sixteenth of memory, at least 2 GiB, but at most half of what /dev/shm has free."""
    from ray._common.utils import get_system_memory  # what a container may use

    wanted = max(OBJECT_STORE_BYTES, int(get_system_memory()) // 16)
    with contextlib.suppress(OSError):
        stat = os.statvfs("/dev/shm")
        return int(max(100 << 20, min(wanted, stat.f_bavail * stat.f_frsize // 2)))
    return wanted
