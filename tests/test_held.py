import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sml_dist.cli import app
from sml_dist.held import held, left
from sml_dist.spec import InputError

HOLD = """
import sys, time
from sml_dist.held import held
with held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_command_on_a_folder_is_told_who_has_it(other, tmp_path):
    started = time.monotonic()
    with (
        pytest.raises(InputError, match=rf"process {other.pid} on .* since 20\d\d-.*choose another name.*remove .*run/lock"),
        held(tmp_path / "run", 0.3),
    ):
        pass
    assert 0.3 <= time.monotonic() - started < 5


@pytest.mark.parametrize(
    "command",
    [
        "train configs/smoke.yaml --set data.path=DATA --set run.storage=HERE --set run.name=run",
        "sweep configs/sweeps/sml.yaml --set storage=HERE --set name=run",
        "prepare --schema criteo --input logs --output HERE/run",
        "predict r --input logs --output HERE/run",
    ],
)
def test_a_command_whose_folder_another_has_is_told_so_before_ray_starts(command, tmp_path, synthetic, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr("sml_dist.held.PATIENCE_SECONDS", 0)
    monkeypatch.setattr("sml_dist.session.ray_session", lambda *_, **__: pytest.fail("Ray was started"))
    words = command.replace("HERE", str(tmp_path)).replace("DATA", synthetic(1_000, fields=3, table_rows=300)).split()
    with held(tmp_path / "run"):
        found = CliRunner().invoke(app, words)
    assert isinstance(found.exception, InputError) and "run is being written by another command" in str(found.exception)


def test_a_folder_is_free_when_its_process_was_killed(other, tmp_path):
    assert not left(tmp_path / "run")
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert left(tmp_path / "run")
    with held(tmp_path / "run", 10):
        assert f"process {os.getpid()} " in (tmp_path / "run" / "lock").read_text()
    assert not list((tmp_path / "run").iterdir())
    with held(tmp_path / "run", 0):
        pass


def test_who_waits_gets_the_folder_when_it_is_left(other, tmp_path):
    other.terminate()
    with held(tmp_path / "run", 10):
        pass


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), held(tmp_path / "file" / "run"):
        pass


COUNT = """
import sys
from pathlib import Path
from sml_dist.held import held
for _ in range(int(sys.argv[2])):
    with held(sys.argv[1], 60):
        number = Path(sys.argv[1]).parent / "number"
        number.write_text(str(int(number.read_text()) + 1))
"""


def test_a_folder_is_never_two_commands_own(tmp_path):
    (tmp_path / "number").write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "run"), "40"]
    counting = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in counting] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "120"
