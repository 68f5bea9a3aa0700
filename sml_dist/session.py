"""Joining or starting Ray, quietly, never by accident, and never open to others."""

import contextlib
import importlib
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator

from sml_dist.bare_ray import bare
from sml_dist.spec import InputError

REACH_SECONDS = 10.0
OBJECT_STORE_BYTES = 2 << 30  # of a local Ray, where this is more than a sixteenth of memory; streams bound what they keep in it

# What the processes of an instance of our own inherit; on a cluster it belongs into the nodes' environment.
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

# Of an instance that ends with its command: what runs in it may know (train/controller.py), and its raylet asks every 20 ms, not
# every second, whether the object store is up.
ALONE = "SML_DIST_ALONE"
ALONE_ENVIRONMENT = {
    ALONE: "1",
    "RAY_raylet_client_connect_timeout_milliseconds": "20",
    "RAY_raylet_client_num_connect_attempts": "1000",
}


@contextlib.contextmanager
def ray_session(workers: int = 0, *, reader_cpus: float = 0.5, verbose: bool = False, meanwhile: str | None = None) -> Iterator[None]:
    """Ray for one command: the cluster that RAY_ADDRESS names, else an instance of our own that ends with the command.

    A local instance gets more logical CPUs than cores where workers would leave none for the readers. `meanwhile` is a
    module to import while Ray starts, which is mostly waiting. What Ray tells, it tells on standard error while this lasts:
    of its own it takes standard output, which is for results.
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
    with contextlib.redirect_stdout(sys.stderr):
        if address := os.environ.get("RAY_ADDRESS"):
            _reach(address)
            ray.init(address=address, **quiet)
        else:
            ask_for_token()
            cpus = max(cpu_count(), workers + int(4 * workers * reader_cpus) + 1)
            with environment(LOCAL_ENVIRONMENT | ALONE_ENVIRONMENT), bare(logs=verbose):
                ray.init("local", num_cpus=cpus, object_store_memory=_object_store(), include_dashboard=False, **quiet)
        try:
            yield
        finally:
            ray.shutdown()


def check_cpus(cpus: float) -> None:
    """A node that is there has so many: Ray would wait for one for ever. A cluster may yet grow. Raises InputError."""
    import ray

    largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    if not os.environ.get("RAY_ADDRESS") and cpus > largest:
        raise InputError(
            f"cpus {cpus:g}: the largest node has {largest:g}, and Ray would wait for ever; lower it with --set cpus={largest:g}"
        )


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """For the processes started within; what the user has set stays.

    Not for longer: what Ray Train finds in the driver's environment it gives its actors by a runtime environment of their
    own, and then they wait for new processes in place of those that Ray has ready.
    """
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def ask_for_token() -> None:
    """The Ray that this process starts takes a token that only its own processes have: Ray's ports are open to the network."""
    from ray._raylet import Config

    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    Config.initialize("")  # Ray has read these when it was imported, and does the same where it switches tokens on


def _reach(address: str) -> None:
    """Raises InputError where nothing listens at HOST:PORT: Ray itself would try for eight minutes and more."""
    host, _, port = address.rpartition(":")
    if "://" not in address and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
        except OSError as error:
            raise InputError(f"RAY_ADDRESS {address}: no Ray answers there ({error}); unset it for one of this machine's own") from None


def _object_store() -> int:
    """Bytes for a local object store: a sixteenth of memory but 2 GiB at least, or half of what shared memory has free."""
    from ray._common.utils import get_system_memory  # what a container may use

    wanted = max(OBJECT_STORE_BYTES, int(get_system_memory()) // 16)
    with contextlib.suppress(OSError):
        stat = os.statvfs("/dev/shm")
        return int(max(100 << 20, min(wanted, stat.f_bavail * stat.f_frsize // 2)))
    return wanted
