"""The Ray that a command starts for itself is closed to everyone else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sml_dist
from sml_dist.session import environment, ray_session, without_noise
from sml_dist.spec import InputError

SESSION = """
import os, subprocess, sys
import ray  # before the session, as commands do
from sml_dist.session import ray_session
with ray_session():
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    address = ray.get_runtime_context().gcs_address
    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    code = f"import ray; ray.init('{address}'); print('inside')"
    found = subprocess.run([sys.executable, "-c", code], env=stranger, capture_output=True, text=True, timeout=60)
    assert found.returncode and "inside" not in found.stdout, found.stdout
    assert "uthenti" in found.stderr, found.stderr[-2000:]
"""


def test_a_stranger_without_the_token_is_not_let_into_a_commands_own_ray():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    found = subprocess.run([sys.executable, "-c", SESSION], env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert found.returncode == 0, found.stderr[-3000:]


OWN_TOKEN = """
import os
import ray  # before, as commands do
from ray._raylet import AuthenticationTokenLoader
from sml_dist.session import ask_for_token
for _ in range(2):
    ask_for_token()
    assert AuthenticationTokenLoader.instance().get_raw_token() == os.environ["RAY_AUTH_TOKEN"]
    print(os.environ["RAY_AUTH_TOKEN"])
"""


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_commands_own_ray_has_a_new_token_whatever_the_environment_says_of_a_cluster_that_may_be_gone(name):
    environment = os.environ | {"RAY_AUTH_MODE": "token", name: "/gone/with/its/cluster"}
    found = subprocess.run([sys.executable, "-c", OWN_TOKEN], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert len({*found.stdout.split(), environment[name]}) == 3


def test_standard_output_is_for_results_whatever_ray_prints():
    code = "from sml_dist.session import ray_session\nwith ray_session(): print('of Ray')\nprint('a result')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    assert found.stdout == "a result\n" and "of Ray" in found.stderr


def test_what_raylets_tell_that_no_user_can_act_on_is_kept_from_the_terminal_and_the_rest_is_shown(capsys):
    from ray._private import worker

    with without_noise():
        for line in (
            "WARNING: 8 PYTHON worker processes have been started on node: 1f with address: 10.0.0.1, which is 4x the maximum",
            "Task ServeController.graceful_shutdown failed. There are infinite retries remaining, so the task will be retried.",
            "Task ServeController.listen_for_change failed. There are infinite retries remaining, so the task will be retried.",
            "Task read failed due to oom. There are infinite oom retries remaining",
            "Task MapBatches(WindowReader) failed. There are infinite retries remaining, so the task will be retried. Error: SIGSEGV",
        ):
            worker.print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    shown = "".join(capsys.readouterr())
    assert "due to oom" in shown and "WindowReader" in shown and "worker processes" not in shown and "ServeController" not in shown


CHILDREN = """
import sys, time
import ray
import psutil  # which Ray brings
from sml_dist.session import ray_session
verbose = sys.argv[1:] == ["verbose"]
with ray_session(verbose=verbose):
    ray.get(ray.remote(lambda: print("said by a worker")).remote())
    found = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    sys.stdin.read() if verbose else time.sleep(2)
for name in ("gcs_server", "raylet", "log_monitor", "dashboard.py", "autoscaler"):
    print(name, sum(name in line for line in found))
"""


@pytest.mark.parametrize("verbose", [False, True])
def test_a_commands_own_ray_starts_what_it_needs_alone(verbose):
    command = [sys.executable, "-c", CHILDREN, *(["verbose"] if verbose else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as session:
        said = ""
        while verbose and "said by a worker" not in said and (line := session.stderr.readline()):
            said += line
        printed, rest = session.communicate()  # which lets a verbose session end
        said += rest
    assert session.returncode == 0, said
    counts = dict(line.rsplit(" ", 1) for line in printed.splitlines())
    assert counts["gcs_server"] == "1" and counts["raylet"] != "0"
    assert counts["log_monitor"] == str(int(verbose)) and ("said by a worker" in said) == verbose
    assert counts["dashboard.py"] == counts["autoscaler"] == "0"


def test_every_ray_that_is_started_here_is_told_to_ask_for_a_token_first():
    started = {}
    for path in Path(sml_dist.__file__).parent.rglob("*.py"):
        before, start, _ = path.read_text().partition('ray.init("local"')
        if start and "peers" not in path.parts:  # which run in an environment without sml_dist
            started[path.stem] = "ask_for_token()\n" in before
    assert started == {"session": True, "doctor": True}


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:9", "cannot join a Ray there .*refused.*unset it"),
        ("auto", "cannot join a Ray there .*refused.*unset it"),
        ("local", "cannot join a Ray there .*none runs on this machine.*unset it"),
        ("localhost", "cannot join a Ray there .*name the head's HOST:PORT, or unset it"),
        ("http://127.0.0.1:8265", "this is a dashboard's address; name the head's own, HOST:6379"),
    ],
)
def test_an_address_where_no_ray_can_be_is_told_of_at_once(address, told, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: "127.0.0.1:9")  # of a cluster that died
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was left to try for minutes"))
    with pytest.raises(InputError, match=f"^RAY_ADDRESS {address}: {told}"), ray_session():
        pass


def test_what_ray_says_of_an_address_that_it_cannot_join_is_one_line(monkeypatch):
    def fail(**_) -> None:
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:1")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", fail)
    with pytest.raises(InputError, match=r"RAY_ADDRESS ray://127.0.0.1:1: cannot join a Ray there \(ray client"), ray_session():
        pass


def test_variables_are_set_for_a_time_and_those_of_the_user_stay_unless_overridden(monkeypatch):
    monkeypatch.setenv("SML_TEST_MINE", "mine")
    monkeypatch.delenv("SML_TEST_NEW", raising=False)
    names = {"SML_TEST_MINE": "other", "SML_TEST_NEW": "new"}
    for override, mine in ((False, "mine"), (True, "other")):
        with environment(names, override=override):
            assert [os.environ[name] for name in names] == [mine, "new"]
        assert [os.environ.get(name) for name in names] == ["mine", None]
