"""submit, jobs: commands of this project on a cluster."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sml_dist.cli.app import Json, app, err, filled, out, print_json
from sml_dist.spec import InputError, many
from sml_dist.tabular import rich_table

Address = Annotated[
    str | None, typer.Option(callback=filled, help="A dashboard's URL or a local cluster's name; else RAY_API_SERVER_ADDRESS, or local.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Accept a cluster on another machine that has no token.")]
Id = Annotated[str, typer.Argument(help="A job's id, as `sml-dist jobs` lists it.")]
# Of a command's paths those that outlast it: a job's own folder is thrown away.
KEPT = ("run", "input", "output", "data", "train", "valid", "test", "since", "against", "extend")

jobs = typer.Typer(invoke_without_command=True, help="List the jobs of a cluster; follow or stop one.")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, epilog="What submit does not know is the job's.")
def submit(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="A command with a file in jobs/: train, prepare, study, ...")],
    address: Address = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job's log to its end.")] = True,
    checkout: Annotated[str, typer.Option("--working-dir", callback=filled, help="The checkout that is sent.")] = ".",
    install: Annotated[
        Literal["cpu", "gpu"] | None, typer.Option(help="cpu | gpu: install the lock on nodes that do not have it, but for torch.")
    ] = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Run JOB with its arguments on a cluster; submitting it again resumes one that was stopped or lost."""
    from sml_dist.operations import jobs as ray_jobs
    from sml_dist.operations.connect import connect

    working_dir = Path(checkout)
    if not (working_dir / "jobs" / f"{job}.py").is_file():
        has = ", ".join(sorted(path.stem for path in (working_dir / "jobs").glob("*.py")))
        way_out = f"it has {has}" if has else "run this in the project's checkout, or give --working-dir /path/to/checkout"
        raise InputError(f"there is no job {job} in {working_dir / 'jobs'}; {way_out}")
    run = run_of(job, context.args, working_dir)
    packages = ray_jobs.locked(working_dir, install) if install else None
    client = connect(address, insecure=insecure)
    identifier = ray_jobs.submit(client, job, context.args, run, working_dir, packages)
    if not wait:
        print_json({"id": identifier}) if as_json else out.print(identifier, highlight=False)
        return
    err.print(f"job {identifier}; Ctrl-C stops following", highlight=False)
    followed(client, identifier, as_json)


@jobs.callback()
def listing(context: typer.Context, address: Address = None, insecure: Insecure = False, as_json: Json = False) -> None:
    from sml_dist.operations.connect import connect
    from sml_dist.operations.jobs import listed

    if context.invoked_subcommand:
        if address or insecure or as_json:
            name = context.invoked_subcommand
            raise InputError(f"jobs: give its options behind {name}, as in {name} ID --address URL")
        return
    found = listed(connect(address, insecure=insecure))
    if as_json:
        print_json(found)
        return
    table = rich_table(many(len(found), "job"), ("id", "job", "run", "status", "exit", "started", "seconds"), "llllrlr")
    for each in found:
        started = datetime.fromtimestamp(each["started"]).strftime("%Y-%m-%d %H:%M:%S") if each["started"] else ""
        values = (each["id"], each["job"], each["run"], each["status"].lower(), each["exit"], started, each["seconds"])
        table.add_row(*("" if value is None else str(value) for value in values))
    out.print(table)


@jobs.command("follow")
def jobs_follow(identifier: Id, address: Address = None, insecure: Insecure = False, as_json: Json = False) -> None:
    """The job's log, from its beginning to the job's end; its exit status."""
    from sml_dist.operations.connect import connect

    followed(connect(address, insecure=insecure), identifier, as_json)


@jobs.command("stop")
def jobs_stop(identifier: Id, address: Address = None, insecure: Insecure = False, as_json: Json = False) -> None:
    """Stop a job and wait until it has."""
    from sml_dist.operations.connect import connect
    from sml_dist.operations.jobs import stop

    status = stop(connect(address, insecure=insecure), identifier)
    print_json({"id": identifier, "status": status}) if as_json else out.print(f"job {identifier}: {status.lower()}", highlight=False)


app.add_typer(jobs, name="jobs")


def run_of(job: str, arguments: list[str], checkout: Path) -> str:
    """The name of the run that a job works at. Raises InputError for arguments that the command refuses, or that cannot work in a job."""
    commands = typer.main.get_command(app).commands
    if job not in commands:
        way_out = f"ray job submit --working-dir {checkout} -- python jobs/{job}.py ... runs a script of your own"
        raise InputError(f"{job} is no command of sml-dist, and jobs/{job}.py not one of its jobs; {way_out}")
    given = commands[job].make_context(job, list(arguments)).params
    paths = {key: given.get(key) for key in KEPT}
    name = Path(given.get("output") or given.get("run") or given.get("config") or job).name
    if job in LASTING:
        lasting, own_name = LASTING[job](checkout, given)
        paths, name = paths | lasting, own_name or name
    for key, path in paths.items():
        if isinstance(path, str) and "://" not in path and not Path(path).is_absolute():
            raise InputError(f"{key} {path} is relative, and a job's folder is thrown away; name one that all nodes see, from the root on")
    return name if job == "train" else f"{job}-{name}"


def trained(checkout: Path, given: dict[str, Any]) -> tuple[dict[str, str | None], str]:
    """The paths of a run that outlast its job, by key, and its name."""
    from sml_dist.config.run import load

    config = load(str(checkout / given["config"]), given["overrides"])
    return {"run.storage": config.run.storage, **read_by(config)}, config.run.name


def swept(checkout: Path, given: dict[str, Any]) -> tuple[dict[str, str | None], str]:
    """The paths of a sweep that outlast its job, by key, and its name."""
    from sml_dist.config.run import load
    from sml_dist.config.settings import load_settings
    from sml_dist.config.tune import SweepConfig

    sweep = load_settings(SweepConfig, str(checkout / given["config"]), given["overrides"])
    base = load(str(checkout / sweep.base), sweep.set)
    return {"storage": sweep.storage, **read_by(base)}, sweep.name


def read_by(config: Any) -> dict[str, str | None]:
    """What a run of this configuration reads, by key."""
    return {"data.path": config.data.path, "run.warm_start": config.run.warm_start}


def studied(checkout: Path, given: dict[str, Any]) -> tuple[dict[str, str | None], str | None]:
    """The paths of a study that outlast its job, by key; no name, since it is named after its output."""
    from sml_dist.config.file import read_yaml
    from sml_dist.config.run import load
    from sml_dist.config.settings import load_settings
    from sml_dist.review.read import flatten

    config, overrides = str(checkout / given["config"]), given["overrides"]
    if given["name"] == "ablation":
        from sml_dist.studies.grid import GridConfig

        grid = load_settings(GridConfig, config, overrides)
        return read_by(load(str(checkout / grid.base), grid.set)), None
    keys = flatten(read_yaml(config, overrides))
    return {key: path for key, path in keys if key == "data.path" or (key.startswith("logs.") and key.endswith(".path"))}, None


LASTING = {"train": trained, "sweep": swept, "study": studied}  # the paths that outlast a job, by key, and its run's name


def asked_to_stop(identifier: str) -> bool:
    """A second Ctrl-C is a no."""
    try:
        return typer.confirm(f"\nStop job {identifier} too?", err=True)
    except typer.Abort:
        return False


def followed(client: Any, identifier: str, as_json: bool) -> None:
    """Follows and exits as the job does; Ctrl-C asks whether to stop it."""
    from sml_dist.operations.jobs import described, follow, known, stop

    write = (sys.stderr if as_json else sys.stdout).write
    try:
        status = follow(client, identifier, write)
    except KeyboardInterrupt:
        if not (sys.stdin.isatty() and asked_to_stop(identifier)):
            err.print(f"job {identifier} goes on; sml-dist jobs follow {identifier}{client.options}", highlight=False, soft_wrap=True)
            sys.exit(130)
        status = 130
        stop(client, identifier)
    ended = described(known(client, identifier))
    if as_json:
        print_json({"id": identifier, "status": ended["status"], "exit": status, "message": ended["message"]})
    else:
        why = f": {ended['message'].strip()}" if ended["status"] == "FAILED" and ended["message"] else ""
        err.print(f"job {identifier}: {ended['status'].lower()}{why}", highlight=False, soft_wrap=True)
    sys.exit(status)
