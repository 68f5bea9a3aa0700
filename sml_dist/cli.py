"""The command line. Results go to standard output, everything else to standard error; exit status 2 says what to mend."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from sml_dist.spec import InputError, RunError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False, help=__doc__)
err = Console(stderr=True)
out = Console()

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a key: --set train.epochs=2. May be repeated.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what Ray and its workers log.")]


def main() -> NoReturn:
    """Runs the command; turns an InputError into one line and exit status 2."""
    try:
        app(standalone_mode=False)
    except InputError as error:
        fail(str(error))
    except typer._click.exceptions.ClickException as error:
        fail(error.format_message())
    except RunError as error:
        fail(f"{error}; run it again with --verbose to see the workers' logs", status=1)
    except (KeyboardInterrupt, typer.Abort):
        err.print("stopped; the same command goes on from the last checkpoint")
        sys.exit(130)
    sys.exit(0)


def fail(line: str, status: int = 2) -> NoReturn:
    err.print("error:", style="bold red", end=" ")
    err.print(line, highlight=False, soft_wrap=True, markup=False)
    sys.exit(status)


@app.command()
def prepare(
    schema: Annotated[str, typer.Option(help="criteo, avazu, frappe, ml1m, or a YAML file of your own.")],
    output: Annotated[str, typer.Option(help="Folder to write; any fsspec URL.")],
    input: Annotated[str | None, typer.Option(help="Glob of raw logs, to be split by --split.")] = None,
    split: Annotated[str | None, typer.Option(help="order:0.8,0.1,0.1 (or rows: order:64000,8000), random:..., time:...")] = None,
    train: Annotated[str | None, typer.Option(help="Glob of training logs, instead of --input.")] = None,
    valid: Annotated[str | None, typer.Option(help="Glob of validation logs.")] = None,
    test: Annotated[str | None, typer.Option(help="Glob of test logs.")] = None,
    min_count: Annotated[int | None, typer.Option(help="Values seen fewer times share row 0; overrides the schema's.")] = None,
    max_reject_rate: Annotated[float, typer.Option(help="Stop when a larger share of rows is bad.")] = 0.001,
    seed: Annotated[int, typer.Option(help="Of the random split.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a finished dataset.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Raw click logs to a prepared dataset."""
    from sml_dist.data.prepare import prepare as run
    from sml_dist.session import ray_session

    with ray_session(verbose=verbose), stage_bars() as progress:
        manifest = run(
            schema, output, inputs=input, split=split, train=train, valid=valid, test=test,
            max_reject_rate=max_reject_rate, min_count=min_count, overwrite=overwrite, seed=seed, progress=progress,
        )  # fmt: skip
    show_dataset(manifest, output, as_json)


@app.command()
def synth(
    rows: Annotated[int, typer.Option(help="Rows in all splits together.")],
    output: Annotated[str, typer.Option(help="Folder to write.")],
    seed: int = 0,
    fields: Annotated[int, typer.Option(help="Categorical fields.")] = 26,
    dense: Annotated[int, typer.Option(help="Numeric features.")] = 13,
    table_rows: Annotated[int | None, typer.Option(help="Rows of all tables together; by default grows with --rows.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a finished dataset.")] = False,
    as_json: Json = False,
) -> None:
    """Synthetic click logs whose best reachable AUC and logloss are known."""
    from sml_dist.data.synthetic import synth as run

    with stage_bars() as show:
        manifest = run(
            rows, output, seed=seed, fields=fields, dense=dense, table_rows=table_rows, overwrite=overwrite,
            progress=lambda done: show("rows", done, rows),
        )  # fmt: skip
    show_dataset(manifest, output, as_json)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="YAML file; see configs/.")],
    overrides: Set = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train, evaluate, checkpoint; the same command again goes on from the last checkpoint."""
    from sml_dist.config.run import load
    from sml_dist.session import ray_session
    from sml_dist.train.launch import check, launch
    from sml_dist.train.progress import TrainProgress

    run = load(config, overrides)
    check(run)
    with ray_session(run.train.worker_range[1], reader_cpus=run.data.reader_cpus, verbose=verbose), TrainProgress(err) as progress:
        summary = launch(run, progress.update)
    show_summary(summary, as_json)


@app.command()
def verify(
    run: Annotated[str, typer.Argument(help="Folder of a run.")],
    data: Annotated[str | None, typer.Option(help="Where the dataset lies now, if not where the run read it.")] = None,
    as_json: Json = False,
) -> None:
    """Check a run's checkpoints, and by its ledger (train.record_rows) that each row was used once."""
    from sml_dist.train.verify import verify_run

    found = verify_run(run, data)
    if as_json:
        print_json(found)
    else:
        show_verified(found)
    if not found["ok"]:
        sys.exit(1)


STUDIES = {
    "ablation": "runs paired by seed over a grid",
    "depth": "towers of 3 to 100 layers",
    "landscape": "what the theorem says and does not",
    "online": "logs in time order, predicted before they are trained on",
}
ON_RAY = ("ablation", "online")


@app.command(epilog="; ".join(f"{name}: {what}" for name, what in STUDIES.items()))
def study(
    name: Annotated[str, typer.Argument(help=" | ".join(STUDIES))],
    config: Annotated[str, typer.Argument(help="YAML file; configs/studies/ has one for each study.")],
    output: Annotated[str, typer.Option(help="Folder to write.")],
    overrides: Set = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run one of the studies. Ablation and online, started again, run what is not done yet."""
    import importlib

    from sml_dist.session import ray_session

    if name not in STUDIES:
        fail(f"study {name!r} is not one of {', '.join(STUDIES)}")
    module = importlib.import_module(f"sml_dist.studies.{name}")
    with ray_session(verbose=verbose) if name in ON_RAY else contextlib.nullcontext(), stage_bars() as show:
        found = module.run(config, overrides, output, show)
    if as_json:
        print_json(found)
    else:
        out.print((Path(found["folder"]) / "README.md").read_text(), markup=False, highlight=False, soft_wrap=True)
        out.print(f"written to {found['folder']}", soft_wrap=True, highlight=False)


@app.command()
def plan(
    config: Annotated[str, typer.Argument(help="YAML file; configs/plans/ has two.")],
    world_size: Annotated[int, typer.Option(help="Ranks of the cluster.")],
    local_world_size: Annotated[int, typer.Option(help="Ranks of a node.")] = 8,
    device: Annotated[str, typer.Option(help="cuda | cpu")] = "cuda",
    hbm: Annotated[str, typer.Option(help="Memory of each GPU.")] = "80GB",
    ddr: Annotated[str, typer.Option(help="Memory of each node; 0 keeps a GPU's tables out of it.")] = "1TB",
    intra_bw: Annotated[str, typer.Option(help="A second, between ranks of a node.")] = "600GB",
    inter_bw: Annotated[str, typer.Option(help="A second, from a rank to other nodes.")] = "25GB",
    hbm_bw: Annotated[str, typer.Option(help="A second, of a GPU's memory.")] = "2TB",
    tables: Annotated[str | None, typer.Option(help="YAML of the tables, instead of the dataset at data.path.")] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Tables' places, memory and time by rank on a cluster you do not have here; exit status 1 if they do not fit."""
    from sml_dist.embeddings.capacity_report import as_dict, make_cluster, plan_run
    from sml_dist.embeddings.capacity_text import report_text

    made = plan_run(config, overrides, make_cluster(world_size, local_world_size, device, hbm, ddr, intra_bw, inter_bw, hbm_bw), tables)
    print_json(as_dict(made)) if as_json else sys.stdout.write(report_text(made))
    sys.exit(0 if made.fits else 1)


@app.command("config")
def show_config(config: str, overrides: Set = None, as_json: Json = False) -> None:
    """Print the resolved configuration."""
    from sml_dist.config.run import dump, load
    from sml_dist.spec import to_dict

    run = load(config, overrides)
    sys.stdout.write(json.dumps(to_dict(run)) + "\n" if as_json else dump(run))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check the installation, with a fix for each fault."""
    from sml_dist.doctor import diagnose, render

    checks = diagnose()
    if as_json:
        print_json([vars(check) for check in checks])
    else:
        out.print(render(checks))
    if not all(check.ok for check in checks):
        sys.exit(2)


@contextlib.contextmanager
def stage_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on standard error: call the value with (stage, done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


def show_dataset(manifest: Any, output: str, as_json: bool) -> None:
    from sml_dist.spec import to_dict

    if as_json:
        print_json({"path": output} | {k: v for k, v in to_dict(manifest).items() if k not in ("source",)})
        return
    table = Table(title=f"{manifest.name}: {output}", title_justify="left")
    for name in ("split", "rows", "positives", *(("best AUC", "best logloss") if manifest.best else ())):
        table.add_column(name, justify="left" if name == "split" else "right")
    for name, split in manifest.splits.items():
        best = manifest.best.get(name)
        known = (f"{best.auc:.4f}", f"{best.logloss:.4f}") if best else ()
        table.add_row(name, f"{split.rows:,}", f"{split.positives / max(split.rows, 1):.2%}", *known)
    out.print(table)
    ids = sum(field.rows for field in manifest.fields)
    out.print(f"{len(manifest.fields)} fields ({ids:,} table rows), {len(manifest.dense)} numeric features")
    out.print(f"read {manifest.rows_read:,} = kept {manifest.rows_kept:,} + rejected {manifest.rows_rejected:,}")


def show_summary(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    table = Table(title=f"{summary['model']}{' with SML' if summary['sml'] else ''}", title_justify="left")
    names = [name for name in ("auc", "gauc", "logloss", "ne", "calibration", "rows") if name in summary["valid"]]
    for name in ("", *names):
        table.add_column({"auc": "AUC", "gauc": "GAUC", "ne": "NE"}.get(name, name), justify="right" if name else "left")
    for split in ("valid", "test"):
        if split in summary:
            values = summary[split]
            table.add_row(split, *(f"{values[n]:,}" if n == "rows" else f"{values[n]:.5f}" for n in names))
        if best := summary["best"].get(split):
            table.add_row(f"{split}, best reachable", *(f"{best[n]:.5f}" if n in best else "" for n in names), style="dim")
    out.print(table)
    if groups := summary["valid"].get("largest_groups"):
        out.print(groups_table(groups, summary["valid"]["groups"]))
    out.print(
        f"{summary['rows_seen']:,} rows in {summary['epochs']:g} epochs on {summary['workers']} workers ({summary['precision']}), "
        f"{summary['samples_per_second']:,.0f} samples/s, {summary['data_wait_fraction']:.1%} of the time waiting for data"
    )
    out.print(f"run folder {summary['run']}", soft_wrap=True, highlight=False)


def groups_table(groups: list[dict[str, float]], count: int) -> Table:
    table = Table(title=f"AUC per group: the largest of {count:,} groups (valid)", title_justify="left")
    for name in ("group", "rows", "positives", "AUC"):
        table.add_column(name, justify="right")
    for group in groups:
        table.add_row(str(group["group"]), f"{group['rows']:,.0f}", f"{group['positives']:,.0f}", f"{group['auc']:.5f}")
    return table


def show_verified(found: dict[str, Any]) -> None:
    for fault in found["damaged"]:
        out.print(f"damaged: {fault}", style="red", soft_wrap=True, highlight=False)
    out.print(f"{found['checkpoints']} checkpoints, {len(found['damaged'])} damaged")
    if "rows" in found:
        workers = ", ".join(map(str, found["workers"]))
        out.print(f"{found['step']:,} steps to the newest sound one, by {found['attempts']} attempts on {workers} workers")
        out.print(f"{found['rows']:,} rows in {found['epochs']:g} epochs: {found['missing']:,} missing, {found['doubled']:,} doubled,")
        out.print(f"{found['wrong']:,} in batches that are not the plan's; {len(found['skipped'])} batches skipped for bad numbers")
    out.print("each row was used once" if found["ok"] else "NOT in order", style="green" if found["ok"] else "bold red")


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    main()
