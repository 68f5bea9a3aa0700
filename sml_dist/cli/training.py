"""train, verify: a run, and whether it is in order."""

import sys
from typing import Annotated, Any

import typer

from sml_dist.cli.app import Json, Set, Verbose, app, err, filled, out, print_json, warn
from sml_dist.config.metrics import METRICS
from sml_dist.importing import importing
from sml_dist.spec import many
from sml_dist.tabular import rich_table
from sml_dist.train.terminal import numbers


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="YAML file; see configs/.")],
    overrides: Set = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train, evaluate, checkpoint; the same command again goes on from the last checkpoint."""
    with importing():
        from sml_dist.config.run import load
        from sml_dist.held import refuse_held
        from sml_dist.review.follow import tracked
        from sml_dist.review.report import report_quietly
        from sml_dist.session import ray_session
        from sml_dist.train.again import changed_since, finished
        from sml_dist.train.check import check, few_steps
        from sml_dist.train.terminal import TrainProgress

    run = load(config, overrides)
    plan = check(run)
    if summary := finished(run):
        way_on = "more train.epochs or train.max_steps go on, another run.name begins anew"
        warn(f"{run.run.folder} is done: nothing was trained or changed; {way_on}")
        if changed := changed_since(run):
            warn(f"settings that differ from the finished run's, without effect: {changed}")
        show_summary(summary, as_json)
        return
    if line := few_steps(run.train, plan):
        warn(line)
    refuse_held(run.run.folder)
    workers, launching = run.train.worker_range[1], "sml_dist.train.launch"
    ray = ray_session(workers, reader_cpus=run.data.reader_cpus, verbose=verbose, meanwhile=launching)
    with ray, TrainProgress(err) as progress:
        from sml_dist.train.launch import launch

        summary = launch(run, progress.update, followed=tracked(run, warn))
    report_quietly(run.run.folder, warn)
    show_summary(summary, as_json)


@app.command()
def verify(
    run: Annotated[str, typer.Argument(help="Folder of a run.")],
    data: Annotated[str | None, typer.Option(callback=filled, help="Where the dataset lies now, if not where the run read it.")] = None,
    as_json: Json = False,
) -> None:
    """Check a run's checkpoints, and where it kept a ledger (train.record_rows) that each row was used once."""
    from sml_dist.train.verify import verify_run

    found = verify_run(run, data)
    if as_json:
        print_json(found)
    else:
        show_verified(found)
    if not found["ok"]:
        sys.exit(1)


def show_summary(summary: dict[str, Any], as_json: bool) -> None:
    """One that a run returns or, with None for what is undefined, one that was kept."""
    if as_json:
        print_json(summary)
        return
    names = [name for name in (*METRICS, "rows") if name in summary["valid"]]
    columns = ["", *(METRICS[name].short if name in METRICS else name for name in names)]
    table = rich_table(f"{summary['model']}{' with SML' if summary['sml'] else ''}", columns, "lr")
    for split in ("valid", "test"):
        if split in summary:
            for label, values in summary[split].get("labels", {"": summary[split]}).items():
                title, values = f"{split}, {label}" if label else split, numbers(values)
                table.add_row(title, *(f"{values[n]:,}" if n == "rows" else f"{values[n]:.5f}" for n in names))
        if best := numbers(summary["best"].get(split, {})):
            table.add_row(f"{split}, best reachable", *(f"{best[n]:.5f}" if n in best else "" for n in names), style="dim")
    out.print(table)
    out.print(
        f"{summary['rows_seen']:,} rows in {many(summary['epochs'], 'epoch')} on {many(summary['workers'], 'worker')} "
        f"({summary['precision']}), "
        f"{summary['samples_per_second']:,.0f} samples/s, {summary['data_wait_fraction']:.1%} of the time waiting for data"
    )
    if groups := summary["valid"].get("groups"):
        largest = f"sml-dist evaluate {summary['run']} --split valid --by {summary.get('group_field') or 'group'} has the largest"
        out.print(f"GAUC is over {many(groups, 'group')} (valid); {largest}", soft_wrap=True, highlight=False)
    out.print(f"run folder {summary['run']}", soft_wrap=True, highlight=False)


def show_verified(found: dict[str, Any]) -> None:
    for fault in found["damaged"]:
        out.print(f"damaged: {fault}", style="red", soft_wrap=True, highlight=False)
    out.print(f"{many(found['checkpoints'], 'checkpoint')}, {len(found['damaged'])} damaged")
    if "rows" in found:
        workers = "1 worker" if found["workers"] == [1] else f"{', '.join(map(str, found['workers']))} workers"
        out.print(f"{many(found['step'], 'step')} to the newest sound one, by {many(found['attempts'], 'attempt')} on {workers}")
        rows = f"{found['rows']:,} rows in {many(found['epochs'], 'epoch')}"
        out.print(f"{rows}: {found['missing']:,} missing, {found['doubled']:,} doubled,")
        out.print(f"{found['wrong']:,} in batches that are not the plan's; {len(found['skipped'])} batches skipped for bad numbers")
        if unrecorded := " and ".join(f"{first:,} to {last:,}" for first, last in found["unrecorded"]):
            out.print(f"steps {unrecorded} were made without a ledger (train.record_rows): nothing is known of their rows")
    if not found["ok"]:
        out.print("NOT in order", style="bold red")
    elif "rows" in found:
        out.print("each row of the other steps was used once" if found["unrecorded"] else "each row was used once", style="green")
    else:
        out.print("the run kept no ledger of its rows; with train.record_rows=true the next one does", highlight=False)
