"""The token that keeps strangers out of a Ray cluster. Whoever has it can run code there; it does not encrypt."""

import os
import secrets
import stat
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.utils import should_bypass_proxies

from sml_dist.session import is_loopback
from sml_dist.spec import InputError

DEFAULT = Path("~/.ray/auth_token")  # where Ray itself looks
ANSWER_SECONDS = 10.0


def make_token(path: Path) -> None:
    """A new token in a file of its own that nobody else can read, not even for a moment."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w") as file:
        file.write(secrets.token_hex(32))


def token_environment(path: Path | None = None) -> dict[str, str]:
    """What lets Ray use the token: of the file at `path`, else of RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.

    Raises InputError where there is none, or a file that others can read: Ray's own command makes such files.
    """
    if path is None and os.environ.get("RAY_AUTH_TOKEN"):
        return {"RAY_AUTH_MODE": "token"}
    path = path or Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or DEFAULT).expanduser()
    if not path.is_file():
        raise InputError(f"no token at {path}; put the cluster's there under umask 077, or name it by RAY_AUTH_TOKEN_PATH")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(f"{path} can be read by others; chmod 600 {path}")
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def bearer(environment: dict[str, str]) -> dict[str, str]:
    """The HTTP header for that environment's token."""
    path = environment.get("RAY_AUTH_TOKEN_PATH")
    return {"Authorization": f"Bearer {Path(path).read_text().strip() if path else os.environ['RAY_AUTH_TOKEN']}"}


def without_proxy(address: str) -> None:
    """Keeps a loopback address's requests, those of Ray's client too, from a proxy of the environment: it would be sent the token."""
    host = urlsplit(address).hostname or ""
    if is_loopback(host) and not should_bypass_proxies(address, None):
        before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        os.environ["no_proxy"] = f"{before},{host}" if before else host


def answers(address: str, headers: dict[str, str] | None = None) -> int:
    """The HTTP status of a Ray dashboard's API for someone with these headers. Raises InputError where nothing answers."""
    try:
        return requests.get(f"{address}/api/version", headers=headers or {}, timeout=ANSWER_SECONDS).status_code
    except requests.RequestException as error:
        raise InputError(f"no Ray dashboard answers at {address} ({type(error).__name__}); give another --address") from None
