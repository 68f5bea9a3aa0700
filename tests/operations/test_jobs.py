"""What a job is refused for before it is sent, and what is sent."""

import time
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
import requests
from ray.job_submission import JobStatus
from typer.testing import CliRunner

from sml_dist.cli import app
from sml_dist.cli.jobs import followed, run_of
from sml_dist.operations import jobs
from sml_dist.spec import InputError, RunError

ROOT = Path(__file__).parents[2]
SMOKE, SWEEP = "configs/smoke.yaml", "configs/sweeps/sml.yaml"
PATIENCE = 0.05
KEPT = ["--set", "run.storage=/shared/runs", "--set", "data.path=/shared/data"]


class Client:
    """The jobs API as far as a submission asks it: jobs that are there, and a place for a new one."""

    options = " --address http://there:8265"

    def __init__(self, **there: JobStatus):
        self.there, self.sent = there, {}

    def list_jobs(self):
        return [Details(name, status) for name, status in self.there.items()]

    def submit_job(self, **sent):
        self.sent = sent
        return sent["submission_id"]


class Details:
    start_time = end_time = driver_exit_code = message = None
    entrypoint = ""

    def __init__(self, name: str, status: JobStatus):
        self.submission_id, self.status, self.metadata = name.replace("_", "-"), status, {"run": "smoke", "job": "train"}


def test_a_job_is_named_after_the_run_that_it_works_at():
    assert run_of("train", [SMOKE, *KEPT], ROOT) == "smoke"
    assert run_of("train", [SMOKE, *KEPT, "--set", "run.name=mine"], ROOT) == "mine"
    assert run_of("sweep", [SWEEP, "--set", "storage=/shared", "--set", "set=[data.path=/shared/data]"], ROOT) == "sweep-sml"
    assert run_of("study", ["landscape", "configs/studies/landscape.yaml", "--output", "/shared/surface"], ROOT) == "study-surface"
    assert run_of("prepare", ["--schema", "criteo", "--input", "/logs/*", "--output", "/shared/criteo"], ROOT) == "prepare-criteo"


@pytest.mark.parametrize(
    ("job", "arguments", "told"),
    [
        ("train", [SMOKE], "run.storage demo is relative, and a job's folder is thrown away"),
        ("train", [SMOKE, "--set", "run.storage=/shared", "--set", "data.path=data"], "data.path data is relative"),
        ("train", [SMOKE, *KEPT, "--set", "train.epoch=2"], "train.epoch is not a key; did you mean train.epochs?"),
        ("sweep", [SWEEP, "--set", "set=[data.path=/shared/data]"], "storage sweeps is relative, and a job's folder is thrown away"),
        ("sweep", [SWEEP, "--set", "storage=/shared/sweeps"], "data.path data/frappe is relative"),
        ("study", ["ablation", "configs/studies/criteo.yaml", "--output", "/shared/a"], "data.path data/criteo is relative"),
        ("study", ["depth", "configs/studies/depth.yaml", "--output", "/shared/a"], "data.path data/frappe is relative"),
        ("study", ["online", "configs/studies/online.yaml", "--output", "/shared/a"], "logs.ml1m.path data/ml1m is relative"),
        ("export", ["/shared/runs/a", "--output", "/shared/b", "--since", "exports/a"], "since exports/a is relative"),
        ("export", ["/shared/runs/a", "--output", "s3://exports/b"], "--output s3://exports/b is a URL; name a path in a file system"),
        ("prepare", ["--schema", "criteo", "--input", "logs/*", "--output", "/shared/criteo"], "input logs/.* is relative"),
        ("foo", ["--bar"], "foo is no command of sml-dist, and jobs/foo.py not one of its jobs; ray job submit --working-dir /.* runs a"),
    ],
)
def test_what_cannot_work_in_a_job_is_refused_before_it_is_sent(job, arguments, told):
    with pytest.raises(InputError, match=told):
        run_of(job, arguments, ROOT)


def test_a_job_submitted_from_a_folder_that_is_no_checkout_is_told_where_to_run_it(tmp_path):
    found = CliRunner().invoke(app, ["submit", "train", SMOKE, "--working-dir", str(tmp_path)])
    assert isinstance(found.exception, InputError) and "run this in the project's checkout, or give --working-dir" in str(found.exception)


def test_help_on_a_job_needs_no_cluster():
    found = CliRunner().invoke(app, ["jobs", "follow", "--help"])
    assert found.exit_code == 0 and "its exit status" in found.stdout


@pytest.mark.parametrize("command", ["follow", "stop"])
def test_a_job_on_any_cluster_is_followed_and_stopped_there(command, monkeypatch):
    asked = []
    monkeypatch.setattr("sml_dist.operations.connect.connect", lambda address, insecure: asked.append((address, insecure)) or Log())
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(Log, "stop_job", lambda *_: None, raising=False)
    found = CliRunner().invoke(app, ["jobs", command, "smoke", "--address", "http://there:8265", "--insecure"])
    assert (found.exit_code, asked) == (0, [("http://there:8265", True)]), found.output
    refused = CliRunner().invoke(app, ["jobs", "--address", "http://there:8265", command, "smoke"]).exception
    assert isinstance(refused, InputError) and f"give its options behind {command}, as in {command} ID --address" in str(refused)


def test_a_message_that_names_a_command_about_a_job_names_its_cluster_too(monkeypatch, capsys):
    def fail(*_) -> None:
        raise RuntimeError("Job smoke does not exist")

    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    client = Log()
    monkeypatch.setattr(jobs, "follow", interrupted)
    with pytest.raises(SystemExit):
        followed(client, "smoke", as_json=False)
    assert capsys.readouterr().err == f"job smoke goes on; sml-dist jobs follow smoke{client.options}\n"
    client.get_job_info = fail
    with pytest.raises(InputError, match=f"there is no job smoke; sml-dist jobs{client.options} lists them"):
        jobs.known(client, "smoke")


def test_a_run_that_a_job_is_at_is_not_begun_again_and_one_that_ended_is_by_the_next_number():
    ended = Client(smoke=JobStatus.STOPPED, smoke_2=JobStatus.FAILED)
    assert jobs.submit(ended, "train", [SMOKE, "--set", "a='b c'"], "smoke", ROOT) == "smoke-3"
    assert ended.sent["entrypoint"].startswith("python jobs/train.py ") and ended.sent["metadata"] == {"run": "smoke", "job": "train"}
    assert ended.sent["runtime_env"].keys() == {"working_dir"}  # nothing of this machine's environment
    with pytest.raises(
        InputError, match="job smoke is at run smoke now; follow it with sml-dist jobs follow smoke --address http://there:8265, or"
    ):
        jobs.submit(Client(smoke=JobStatus.RUNNING), "train", [SMOKE], "smoke", ROOT)


LONG = RuntimeError("status code 500: Traceback\n" + "  File\n" * 400 + "ValueError: the cause\n.")


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        (requests.ConnectionError("refused"), "refused"),
        (aiohttp.ClientError("gone"), "gone"),
        (RuntimeError("failed with 500"), "failed with 500"),
        (LONG, "status code 500: Traceback File .* ValueError: the cause .$"),
    ],
)
def test_a_cluster_that_is_lost_as_it_is_asked_for_anything_is_one_line(lost, told):
    def fail(*_, **__):
        raise lost

    with pytest.raises(RunError, match=f"^job smoke: {told}"):
        jobs.known(SimpleNamespace(get_job_info=fail), "smoke")
    with pytest.raises(RunError, match=f"^the cluster's jobs: {told}"):
        jobs.listed(SimpleNamespace(list_jobs=fail))
    with pytest.raises(RunError, match=f"^job smoke: {told}"):
        jobs.submit(SimpleNamespace(list_jobs=list, submit_job=fail), "train", [SMOKE], "smoke", ROOT)
    with pytest.raises(RunError, match=f"^job smoke: {told}"):
        jobs.stop(SimpleNamespace(get_job_info=lambda _: None, stop_job=fail), "smoke")


@pytest.mark.parametrize(("status", "exit", "shown"), [("FAILED", None, True), ("FAILED", 2, False), ("STOPPED", None, False)])
def test_why_a_job_failed_is_said_where_its_command_never_ran_and_so_no_log_says_it(status, exit, shown, capsys):
    class Ended(Log):
        async def tail_job_logs(self, identifier):
            return
            yield

        def get_job_status(self, identifier):
            return JobStatus(status)

        def get_job_info(self, identifier):
            job = Details("smoke", JobStatus(status))
            job.driver_exit_code, job.message = exit, "runtime_env setup failed: no [such] package"
            return job

    with pytest.raises(SystemExit):
        followed(Ended(), "smoke", as_json=False)
    why = ": runtime_env setup failed: no [such] package" if shown else ""
    assert capsys.readouterr().err == f"job smoke: {status.lower()}{why}\n"


def test_a_secret_in_the_arguments_is_never_sent(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "canary-91b2")
    client = Client()
    with pytest.raises(InputError, match="argument 3 of train holds the value of WANDB_API_KEY"):
        jobs.submit(client, "train", [SMOKE, "--set", "run.name=canary-91b2"], "smoke", ROOT)
    assert not client.sent


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_what_nodes_install_is_the_lock_with_its_hashes_and_not_torch(kind):
    packages = jobs.locked(ROOT, kind)
    assert all("==" in line and "--hash=sha256:" in line for line in packages)
    names = {line.split("==")[0] for line in packages}
    assert {"ray", "torchrec", f"fbgemm-gpu{'-cpu' if kind == 'cpu' else ''}"} <= names and "torch" not in names


class Log:
    """The jobs API as far as following asks it: a log of two lines whose first tails break off after a silence, or all after one."""

    options = " --address 'http://the re:8265' --insecure"

    def __init__(self, gone: bool = False):
        self.gone, self.tails = gone, iter(["one\n"] if gone else ["one\n", "one\ntw", "one\ntwo\n"])

    async def tail_job_logs(self, identifier):
        if text := next(self.tails, ""):
            yield text
            time.sleep(2 * PATIENCE)
        if not text.endswith("two\n"):
            raise RuntimeError("the connection broke")

    def get_job_status(self, identifier):
        return JobStatus.SUCCEEDED

    def get_job_info(self, identifier):
        return Details("smoke", JobStatus.SUCCEEDED)


def test_a_log_that_breaks_off_after_a_silence_goes_on_where_it_was_until_the_cluster_stays_away(monkeypatch):
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(jobs, "PATIENCE_SECONDS", PATIENCE)
    written: list[str] = []
    assert jobs.follow(Log(), "smoke", written.append) == 0 and "".join(written) == "one\ntwo\n"
    with pytest.raises(RunError, match="the cluster has not answered for 0.05 s"):
        jobs.follow(Log(gone=True), "smoke", written.append)
