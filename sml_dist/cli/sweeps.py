"""sweep: many runs of one configuration with searched keys."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sml_dist.cli.app import Json, Verbose, app, err, out, print_json, warn
from sml_dist.spec import RunError

SET = "Override a key of the sweep: --set trials=8; of its base, after the file's `set`: --set 'set=\\[train.epochs=2]'. May be repeated."


@app.command()
def sweep(
    config: Annotated[str, typer.Argument(help="YAML file; configs/sweeps/ has three.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help=SET)] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Search a run's settings; the same command again runs what is not done yet, and what failed once more."""
    from sml_dist.held import refuse_held
    from sml_dist.review.follow import tracked_sweep
    from sml_dist.session import ray_session
    from sml_dist.tune.blueprint import Blueprint

    blueprint = Blueprint.read(config, overrides)
    refuse_held(blueprint.folder)
    workers, sweeping = blueprint.base.train.worker_range[1], "sml_dist.tune.sweep"
    ray = ray_session(workers if workers > 1 else 0, reader_cpus=blueprint.base.data.reader_cpus, verbose=verbose, meanwhile=sweeping)
    with ray:
        from sml_dist.tune.sweep import run

        found = run(config, overrides, show_trial, tracked_sweep(str(blueprint.folder), warn))
    from sml_dist.review.report import report_quietly

    report_quietly(found["folder"], warn)
    if as_json:
        print_json(found)
    else:
        out.print((Path(found["folder"]) / "README.md").read_text(), highlight=False, soft_wrap=True)
        out.print(f"sweep folder {found['folder']}", soft_wrap=True, highlight=False)
    if "best" not in found and "failed" in found["trials"]:
        none = f"none of {sum(found['trials'].values())} trials has a value, all failed or were cut off"
        raise RunError(f"{none}: {found['folder']}/README.md says of what; mend that, and the same command tries them again")


def show_trial(event: str, record: Any) -> None:
    """A line on standard error for each trial that starts or ends."""
    if event in ("evaluated", "waiting"):
        return
    value = "" if record.value is None else f" {record.value:.5f} after {record.rows:,} rows"
    settings = " ".join(f"{key}={value}" for key, value in record.params.items()) if event in ("started", "exploited") else ""
    why = f": {record.error}" if record.error else ""
    err.print(f"trial {record.id} {event}{value}{why} {settings}".rstrip(), highlight=False, soft_wrap=True)
