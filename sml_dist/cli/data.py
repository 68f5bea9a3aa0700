"""prepare, synth: from raw or made-up logs to a prepared dataset."""

from typing import Annotated, Any

import typer

from sml_dist.cli.app import Json, Verbose, app, filled, out, print_json, stage_bars, warn
from sml_dist.tabular import rich_table


@app.command()
def prepare(
    schema: Annotated[str, typer.Option(callback=filled, help="criteo, avazu, frappe, ml1m, or a YAML file of your own.")],
    output: Annotated[str, typer.Option(callback=filled, help="Folder to write; any fsspec URL.")],
    input: Annotated[str | None, typer.Option(callback=filled, help="Glob of raw logs, to be split by --split.")] = None,
    split: Annotated[str | None, typer.Option(help="order:0.8,0.1,0.1 (or rows: order:64000,8000), random:..., time:...")] = None,
    train: Annotated[str | None, typer.Option(callback=filled, help="Glob of training logs, instead of --input.")] = None,
    valid: Annotated[str | None, typer.Option(callback=filled, help="Glob of validation logs.")] = None,
    test: Annotated[str | None, typer.Option(callback=filled, help="Glob of test logs.")] = None,
    min_count: Annotated[int | None, typer.Option(help="Values seen fewer times share row 0; overrides the schema's.")] = None,
    extend: Annotated[
        str | None, typer.Option(callback=filled, help="An earlier dataset, or a run: its values keep their ids, new ones follow.")
    ] = None,
    max_reject_rate: Annotated[float, typer.Option(help="Stop when a larger share of rows is bad.")] = 0.001,
    seed: Annotated[int, typer.Option(help="Seed of the random split.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a finished dataset.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Raw click logs to a prepared dataset."""
    from sml_dist.data.prepare import prepare as run
    from sml_dist.held import refuse_held
    from sml_dist.session import ray_session

    refuse_held(output)
    with ray_session(verbose=verbose), stage_bars() as show:
        manifest = run(
            schema, output, inputs=input, split=split, train=train, valid=valid, test=test,
            max_reject_rate=max_reject_rate, min_count=min_count, extend=extend, overwrite=overwrite, seed=seed, show=show,
            warn=warn,
        )  # fmt: skip
    show_dataset(manifest, output, as_json)


@app.command()
def synth(
    rows: Annotated[int, typer.Option(help="Rows in all splits together.")],
    output: Annotated[str, typer.Option(callback=filled, help="Folder to write.")],
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


def show_dataset(manifest: Any, output: str, as_json: bool) -> None:
    from sml_dist.data.quarantine import in_words
    from sml_dist.spec import to_dict

    if as_json:
        print_json({"path": output} | {k: v for k, v in to_dict(manifest).items() if k not in ("source",)})
        return
    columns = ("split", "rows", "positives", *(("best AUC", "best logloss") if manifest.best else ()))
    table = rich_table(f"{manifest.name}: {output}", columns, "lr")
    for name, split in manifest.splits.items():
        best = manifest.best.get(name)
        known = (f"{best.auc:.4f}", f"{best.logloss:.4f}") if best else ()
        positives = " / ".join(f"{count / max(split.rows, 1):.2%}" for count in split.positives_by_label)
        table.add_row(name, f"{split.rows:,}", positives, *known)
    out.print(table)
    ids = sum(field.rows for field in manifest.tables)
    out.print(f"{len(manifest.fields)} fields ({ids:,} table rows), {len(manifest.dense)} numeric features")
    why = f" ({in_words(manifest.rejected_by)}; {output}/rejects says why)" if manifest.rows_rejected else ""
    out.print(f"read {manifest.rows_read:,} = kept {manifest.rows_kept:,} + rejected {manifest.rows_rejected:,}{why}", soft_wrap=True)
