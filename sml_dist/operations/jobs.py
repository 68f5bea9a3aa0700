"""Jobs on a cluster: a command of this project, run there from a copy of this checkout."""

import asyncio
import contextlib
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.job_submission import JobDetails, JobStatus

from sml_dist.credentials import refuse
from sml_dist.operations.connect import Client
from sml_dist.operations.package import pack
from sml_dist.spec import InputError, RunError, one_line

ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 120.0  # with a cluster that does not answer
LOST = (RuntimeError, aiohttp.ClientError, requests.RequestException)  # what the client raises then


def submit(client: Client, job: str, arguments: list[str], run: str, folder: Path, packages: list[str] | None = None) -> str:
    """Sends `python jobs/JOB.py ARGUMENTS` with the files of `folder`; returns the submission id: the run's name, numbered from the second.

    The environment is that of the nodes, with `packages` (see `locked`) where they are given; nothing of this machine's own goes along.
    Raises InputError for a run that a job is at already, and for a secret in the arguments.
    """
    for number, argument in enumerate(arguments, 1):
        refuse(argument, f"argument {number} of {job}")
    there = listed(client)
    for each in there:
        if each["run"] == run and each["status"] not in ENDED:
            way_out = f"follow it with sml-dist jobs follow {each['id']}{client.options}, or stop it first"
            raise InputError(f"job {each['id']} is at run {run} now; {way_out}")
    taken = {each["id"] for each in there}
    name = re.sub(r"[^\w.-]+", "-", run)
    identifier = next(each for each in (name, *(f"{name}-{n}" for n in range(2, len(taken) + 3))) if each not in taken)
    environment: dict[str, Any] = {}
    if packages:
        environment["pip"] = {"packages": packages, "pip_check": False, "pip_install_options": ["--no-deps", "--disable-pip-version-check"]}
    entrypoint = shlex.join(["python", f"jobs/{job}.py", *arguments])
    about = {"run": run, "job": job}
    with tempfile.TemporaryDirectory() as scratch:
        environment["working_dir"] = str(pack(folder, Path(scratch) / "checkout.zip"))
        with asked(f"job {identifier}"):
            return client.submit_job(entrypoint=entrypoint, submission_id=identifier, runtime_env=environment, metadata=about)


def locked(folder: Path, kind: str) -> list[str]:
    """The lock's packages with their hashes, `kind` cpu or gpu. torch itself is the nodes': its build differs by machine."""
    names = [folder / "cluster" / name for name in ("requirements.txt", f"torch-{kind}.txt")]
    if missing := [path for path in names if not path.is_file()]:
        raise InputError(f"{missing[0]}: no such lock; run this from the project's checkout")
    lines = [line for path in names for line in re.findall(r"^\w(?:[^\\\n]|\\\n)*", path.read_text(), re.M)]
    return [" ".join(line.replace("\\\n", " ").split()) for line in lines]


def listed(client: Client) -> list[dict[str, Any]]:
    """All jobs, the newest first."""
    with asked("the cluster's jobs"):
        jobs = [job for job in client.list_jobs() if job.submission_id]
    return [described(job) for job in sorted(jobs, key=lambda job: -(job.start_time or 0))]


def described(job: JobDetails) -> dict[str, Any]:
    """`message`: what Ray says of a job whose command has no exit status; that of others repeats the end of their log."""
    about, end = job.metadata or {}, job.end_time / 1000 if job.end_time else None
    start = job.start_time / 1000 if job.start_time else None
    return {
        "id": job.submission_id,
        "run": about.get("run"),
        "job": about.get("job"),
        "status": job.status.value,
        "exit": job.driver_exit_code,
        "message": job.message if job.driver_exit_code is None else None,
        "started": start,
        "seconds": round((end or time.time()) - start, 1) if start else None,
        "entrypoint": job.entrypoint,
    }


def follow(client: Client, identifier: str, write: Callable[[str], None]) -> int:
    """Writes the job's log as it grows until the job has ended; returns its exit status, 1 where a signal or a stop ended it."""
    known(client, identifier)
    asyncio.run(_tail(client, identifier, write))
    while (job := known(client, identifier)).status not in ENDED:
        time.sleep(POLL_SECONDS)
    if job.status == JobStatus.SUCCEEDED:
        return 0
    return job.driver_exit_code if 0 < (job.driver_exit_code or 0) < 256 else 1


async def _tail(client: Client, identifier: str, write: Callable[[str], None]) -> None:
    """A log that breaks off is asked for again, and what was written of it is left out."""
    written, heard = 0, time.monotonic()
    while True:
        at = 0
        try:
            async for text in client.tail_job_logs(identifier):
                if new := text[max(0, written - at) :]:
                    write(new)
                at += len(text)
                written = max(written, at)
            if client.get_job_status(identifier) in ENDED:
                return
            heard = time.monotonic()
        except LOST as error:
            if at:  # it was there until now, though perhaps silent
                heard = time.monotonic()
            elif time.monotonic() - heard > PATIENCE_SECONDS:
                raise RunError(f"the cluster has not answered for {PATIENCE_SECONDS:g} s ({error})") from None
        await asyncio.sleep(POLL_SECONDS)


def stop(client: Client, identifier: str) -> str:
    """Stops a job and waits until it has; returns its status."""
    known(client, identifier)
    with asked(f"job {identifier}"):
        client.stop_job(identifier)
    while (job := known(client, identifier)).status not in ENDED:
        time.sleep(POLL_SECONDS)
    return job.status.value


def known(client: Client, identifier: str) -> JobDetails:
    """Raises InputError for a job that is not there, RunError where the cluster does not say."""
    try:
        with asked(f"job {identifier}"):
            return client.get_job_info(identifier)
    except RunError as error:
        if "does not exist" in str(error):
            raise InputError(f"there is no job {identifier}; sml-dist jobs{client.options} lists them") from None
        raise


@contextlib.contextmanager
def asked(what: str) -> Iterator[None]:
    """Raises RunError where the cluster does not answer, or answers with an error: one line, with the end of a traceback."""
    try:
        yield
    except LOST as error:
        text = one_line(error)
        raise RunError(f"{what}: {text if len(text) <= 300 else f'{text[:100]} ... {text[-200:]}'}") from None
