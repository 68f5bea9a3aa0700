"""Reaching a cluster's jobs API: with its token, and never an open one on another machine unless that was asked for."""

import logging
import os
import re
import shlex
from urllib.parse import urlsplit

from ray.job_submission import JobSubmissionClient

from sml_dist.operations.local_cluster import find
from sml_dist.operations.token import answers, bearer, token_environment, without_proxy
from sml_dist.session import is_loopback
from sml_dist.spec import InputError


class Client(JobSubmissionClient):
    """`options`: what names the same cluster to another command, with a space before it; empty where nothing needs to be said."""

    options = ""


def connect(address: str | None, *, insecure: bool = False) -> Client:
    """A client for the dashboard at a URL, or of the local cluster of that name.

    None: RAY_API_SERVER_ADDRESS, else the local cluster named local. Raises InputError that says what is missing.
    """
    options = (f" --address {shlex.quote(address)}" if address else "") + (" --insecure" if insecure else "")
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or "local"
    own = None
    if "://" not in address and re.search(r"[.:/]", address):
        raise InputError(
            f"{address} is no URL of a dashboard and no local cluster's name; a URL begins with http://, as in http://{address}"
        )
    if "://" not in address:
        cluster = find(address)
        if cluster is None:
            way_out = "give --address http://HOST:8265, or start one with sml-dist cluster up"
            raise InputError(f"there is no local cluster {address}; {way_out}" + (f" --name {address}" if address != "local" else ""))
        address, own = cluster.address, cluster.environment()
    address = address.rstrip("/")
    without_proxy(address)
    if answers(address) == 200:
        if not is_loopback(urlsplit(address).hostname or "") and not insecure:
            raise InputError(f"{address} asks nobody for a token: anyone can run code there; start it with one, or say --insecure")
        return _client(address, {}, options)
    headers = bearer(own or token_environment())
    if (found := answers(address, headers)) != 200:
        raise InputError(f"{address} does not take this token (HTTP {found}); RAY_AUTH_TOKEN_PATH names the file of the right one")
    return _client(address, headers, options)


def _client(address: str, headers: dict[str, str], options: str) -> Client:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(name, None)  # for Ray they count more than the address it is given
    try:
        client = Client(address, headers=headers)
    except (ValueError, KeyError, TypeError):  # of what should be Ray's version
        raise InputError(f"{address} answers, and not as a Ray dashboard does; give another --address") from None
    for name in ("ray", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)  # after the client was made, which sets it
    client.options = options
    return client
