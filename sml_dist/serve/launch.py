"""Starting the service and keeping it up until it is told to stop."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import serve

from sml_dist.serve.application import TOKEN, build, digest_of, read_token
from sml_dist.serve.layout import verify
from sml_dist.session import is_loopback
from sml_dist.spec import InputError

APPLICATION = "sml-dist"


@contextmanager
def running(arguments: dict[str, Any], host: str, port: int) -> Iterator[str]:
    """The service on the Ray that is at hand; its address. Raises InputError."""
    application = build(arguments | {"token_sha256": check(arguments, host, port)})
    if serve.status().proxies:  # a cluster has one Serve: it keeps its own address, and our end would be that of all its applications
        raise InputError(
            "this Ray cluster runs Serve already; deploy sml_dist.serve.application:build there, or end it with `serve shutdown`"
        )
    serve.start(http_options={"host": host, "port": port, "request_timeout_s": 60})
    try:
        try:
            serve.run(application, name=APPLICATION, route_prefix="/")
        except (RuntimeError, OSError) as error:
            raise InputError(f"the service did not start: {str(error).splitlines()[0]}; --verbose shows its log") from None
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        serve.shutdown()


def check(arguments: dict[str, Any], host: str, port: int) -> str | None:
    """Refuses what can be refused before anything is started; the token's digest, as replicas elsewhere have another environment.

    Raises InputError.
    """
    verify(arguments["export"])
    token = read_token(arguments.get("token_file"))
    if token is None and not is_loopback(host):
        raise InputError(f"--host {host} is open to other machines: give a token with --token-file or the environment's {TOKEN}")
    if not os.environ.get("RAY_ADDRESS"):  # a cluster's proxies listen on its own machines
        check_free(host, port)
    return digest_of(token)


def check_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        reason = str(error.strerror or error).partition(" (")[0]
        raise InputError(f"the service cannot listen at {host}, port {port}: {reason}; give another --host or --port") from None


def until_stopped(tell: Callable[[], None], show: Callable[[str], None]) -> None:
    """Waits for Ctrl-C or SIGTERM, and shows what the service says of its export meanwhile."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    tell()
    service = serve.get_app_handle(APPLICATION)

    def told() -> tuple[float, str]:
        answer = service.told.remote()
        try:
            return answer.result(timeout_s=1)
        except TimeoutError:
            answer.cancel()
            raise

    follow(told, show, lambda: stop.wait(1.0))


def follow(told: Callable[[], tuple[float, str]], show: Callable[[str], None], stopped: Callable[[], bool]) -> None:
    """Shows each new line of whichever replica is asked; that of another replica on the same change is the same."""
    when, line = 0.0, ""
    while not stopped():
        try:
            then, said = told()
        except Exception:  # none answers, as one is busy or starts anew; the line is there the next time
            continue
        if then > when and said != line:
            show(said)
        when, line = max((when, line), (then, said))
