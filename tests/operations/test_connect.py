"""A cluster is reached with a token, and an open one on another machine not at all."""

import os
import socket
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sml_dist.operations.connect import connect
from sml_dist.operations.local_cluster import ClusterConfig, up
from sml_dist.operations.token import make_token, token_environment
from sml_dist.session import is_loopback
from sml_dist.spec import InputError

# What else answers 200 to any question, by a name: no JSON, JSON of another kind, of another service.
ANOTHER = {"page": b"<html>hello</html>", "list": b"[1]", "service": b'{"version": 2}'}


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def dashboard(request):
    """What answers the first question to a dashboard as Ray's does: open, or asking for the token `right`."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            if request.param in ANOTHER:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(ANOTHER[request.param])
                return
            given = self.headers.get("Authorization")
            status = 200 if request.param == "open" else 401 if given is None else 200 if given == "Bearer right" else 403
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("0.0.0.0", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def own_address() -> str:
    """This machine's address for others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network address")
        return probe.getsockname()[0]


@pytest.mark.parametrize("dashboard", ANOTHER, indirect=True)
def test_what_answers_and_is_no_ray_is_said_to_be_none(dashboard):
    with pytest.raises(InputError, match=rf"http://127.0.0.1:{dashboard} answers, and not as a Ray dashboard does; give another --address"):
        connect(f"http://127.0.0.1:{dashboard}")


@pytest.mark.parametrize("address", ["localhost:8265", "10.0.0.1", "localhost:8265/"])
def test_an_address_without_its_scheme_is_told_so(address):
    with pytest.raises(InputError, match=f"a URL begins with http://, as in http://{address}"):
        connect(address)


@pytest.mark.parametrize("dashboard", ["open"], indirect=True)
def test_an_open_dashboard_on_another_machine_is_refused_unless_one_insists(dashboard):
    address = f"http://{own_address()}:{dashboard}"
    assert not is_loopback(own_address())
    with pytest.raises(InputError, match="asks nobody for a token: anyone can run code there; start it with one, or say --insecure"):
        connect(address)
    with pytest.raises(InputError, match="answers, and not as a Ray dashboard does; give another --address"):  # past the refusal
        connect(address, insecure=True)


@pytest.mark.parametrize("dashboard", ["open"], indirect=True)
def test_a_client_knows_what_names_its_cluster_to_another_command(dashboard, monkeypatch):
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient.__init__", lambda self, address, headers: None)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address := f"http://127.0.0.1:{dashboard}")
    assert connect(None).options == "" and connect(address, insecure=True).options == f" --address {address} --insecure"


@pytest.mark.parametrize("dashboard", ["token"], indirect=True)
def test_a_missing_a_wrong_and_a_readable_token_are_each_told_of(dashboard, tmp_path, monkeypatch):
    address = f"http://127.0.0.1:{dashboard}"
    with pytest.raises(InputError, match=r"no token at .*\.ray/auth_token; put the cluster's there under umask 077"):
        connect(address)
    make_token(tmp_path / "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(InputError, match=r"does not take this token \(HTTP 403\)"):
        connect(address)
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(InputError, match="can be read by others; chmod 600"):
        connect(address)


@pytest.mark.parametrize("dashboard", ["token"], indirect=True)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_token_of_a_cluster_on_this_machine_goes_by_no_proxy(dashboard, host, monkeypatch):
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setenv("NO_PROXY", "elsewhere.example")
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    with pytest.raises(InputError, match="answers, and not as a Ray dashboard does"):  # to Ray's client, which had the token taken
        connect(f"http://{host}:{dashboard}")
    assert os.environ["no_proxy"] == f"elsewhere.example,{host}"


def test_nothing_there_is_one_line_with_a_way_out():
    with pytest.raises(InputError, match=r"no Ray dashboard answers at http://127.0.0.1:9 \(ConnectionError\)"):
        connect("http://127.0.0.1:9")
    with pytest.raises(InputError, match="there is no local cluster local; give --address http://HOST:8265, or start one"):
        connect(None)


def test_a_token_is_made_for_its_owner_alone_and_never_over_another(tmp_path: Path):
    make_token(tmp_path / "token")
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600 and len((tmp_path / "token").read_text()) == 64
    with pytest.raises(FileExistsError):
        make_token(tmp_path / "token")
    assert token_environment(tmp_path / "token") == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])  # ports other than the dashboard's are open to the network anyway
def test_a_cluster_without_a_token_is_not_started_unless_one_insists(host, monkeypatch):
    monkeypatch.setattr("sml_dist.operations.local_cluster._reserve", lambda config: pytest.fail("it was begun"))
    with pytest.raises(InputError, match="can run code on it; leave out --no-token, or say --insecure"):
        up(ClusterConfig(name="open", dashboard_host=host, token=False))
