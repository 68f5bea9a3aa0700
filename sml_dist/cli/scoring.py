"""predict, evaluate: what a run's model says of rows, and how right it is."""

import contextlib
from typing import Annotated, Any, Literal

import typer

from sml_dist.cli.app import Json, Verbose, app, filled, in_file_system, out, print_json, stage_bars

InPrecision = Annotated[
    Literal["auto", "fp32", "tf32", "bf16"] | None, typer.Option(help="Precision of matrix products (default: the run's).")
]
OnDevice = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes GPUs where there are any.")]


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="Folder of a run, or of one of its checkpoints.")],
    input: Annotated[str, typer.Option(callback=filled, help="A prepared dataset, or a glob of raw logs.")],
    output: Annotated[str, typer.Option(callback=filled, help="Folder to write; any fsspec URL.")],
    step: Annotated[int | None, typer.Option(help="Checkpoint step (default: the best evaluation's).")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Splits to score, e.g. valid,test (default: all). May be repeated.")] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            help="Columns beside file and row: raw ones, split, label, weight, group, timestamp, with commas or repeated; "
            "by default the label, if there is one."
        ),
    ] = None,
    contributions: Annotated[bool, typer.Option("--contributions", help="Add what each layer adds to the logit.")] = False,
    precision: InPrecision = None,
    device: OnDevice = "auto",
    num_workers: Annotated[
        int | None, typer.Option(min=1, help="By default one for each GPU, or for each CPU where there is none.")
    ] = None,
    max_reject_rate: Annotated[float, typer.Option(help="Stop when a larger share of rows is bad.")] = 0.001,
    overwrite: Annotated[bool, typer.Option(help="Replace other predictions.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Score every row of raw logs or of a prepared dataset; the same command again goes on where it stopped."""
    from sml_dist.held import refuse_held
    from sml_dist.scoring.predict import predict as run_predict
    from sml_dist.session import ray_session

    refuse_held(output)
    with ray_session(num_workers or 0, verbose=verbose), stage_bars() as show:
        found = run_predict(
            run, input, output, step=step, splits=listed(split), keys=listed(keys), contributions=contributions,
            precision=precision, device=device, workers=num_workers, max_reject_rate=max_reject_rate,
            overwrite=overwrite, show=show,
        )  # fmt: skip
    show_predictions(found, output, as_json)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="Folder of a run, or of one of its checkpoints.")],
    data: Annotated[
        str | None, typer.Option(callback=filled, help="A prepared dataset, or a glob of raw logs; by default the run's own dataset.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="By default test, or valid where there is none.")] = None,
    step: Annotated[int | None, typer.Option(help="Checkpoint step (default: the best evaluation's).")] = None,
    against: Annotated[
        str | None,
        typer.Option(callback=filled, help="Another run, compared on the same rows and slices with this run's weights and groups."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Which label, if there are several (default: the first).")] = None,
    by: Annotated[list[str] | None, typer.Option(help="Slices by a field, or by `group`. May be repeated.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Slices of each field: its most frequent values.")] = 10,
    resamples: Annotated[int, typer.Option(min=2, help="Bootstrap draws; fewer for millions of rows.")] = 1000,
    unit: Annotated[Literal["row", "group"], typer.Option(help="What is drawn; a group's rows are not independent.")] = "row",
    bins: Annotated[int, typer.Option(min=2, help="Number of calibration bins.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Bootstrap seed.")] = 0,
    precision: InPrecision = None,
    device: OnDevice = "auto",
    max_reject_rate: Annotated[float, typer.Option(help="Of raw logs: stop when a larger share of rows is bad.")] = 0.001,
    output: Annotated[
        str | None, typer.Option(callback=in_file_system, help="Folder for README.md, CSV, JSON, PNG; replaces an evaluation there.")
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Metrics with intervals, slices, calibration; with --against, which of two runs is better on the same rows, and how sure that is."""
    from sml_dist.scoring.evaluate import Options
    from sml_dist.scoring.evaluate import evaluate as run_evaluate
    from sml_dist.scoring.evaluation_page import check_free, write
    from sml_dist.scoring.prepared_rows import is_prepared
    from sml_dist.session import ray_session

    options = Options(
        label=label, by=by or (), top=top, resamples=resamples, unit=unit, bins=bins, seed=seed,
        precision=precision, device=device, max_reject_rate=max_reject_rate,
    )  # fmt: skip
    if output:
        check_free(output)
    raw = data is not None and not is_prepared(data, "--data")
    with ray_session(verbose=verbose) if raw else contextlib.nullcontext(), stage_bars() as show:
        found = run_evaluate(run, data=data, split=split, step=step, against=against, options=options, show=show)
    show_evaluation(found, as_json)
    if output:
        write(found, output)
        if not as_json:
            out.print(f"written to {output}", soft_wrap=True, highlight=False)


def listed(texts: list[str] | None) -> list[str] | None:
    """The names that stand in an option, between commas or each with an option of its own."""
    return None if texts is None else [name.strip() for text in texts for name in text.split(",") if name.strip()]


def show_predictions(found: Any, output: str, as_json: bool) -> None:
    from sml_dist.data.quarantine import in_words
    from sml_dist.spec import many, to_dict

    if as_json:
        print_json({"path": output} | to_dict(found))
        return
    why = f" ({in_words(found.rejected_by)}; {output}/rejects says why)" if found.rows_rejected else ""
    out.print(f"read {found.rows_read:,} = scored {found.rows_scored:,} + rejected {found.rows_rejected:,}{why}", soft_wrap=True)
    out.print(f"{found.model} of {found.checkpoint}", soft_wrap=True, highlight=False)
    out.print(f"{many(len(found.files), 'file')} in {output}/predictions: {', '.join(found.columns)}", soft_wrap=True, highlight=False)


def show_evaluation(found: dict[str, Any], as_json: bool) -> None:
    from sml_dist.scoring.evaluation_text import about_intervals, calibration_table, metrics_table, slices_tables

    if as_json:
        print_json(found)
        return
    out.print(metrics_table(found))
    for name in found["slices"]:
        for table in slices_tables(name, found):
            out.print(table)
    out.print(calibration_table(found))
    out.print(f"{about_intervals(found)}; {found['checkpoint']} ({found['precision']}) on {found['data']}", soft_wrap=True, highlight=False)
