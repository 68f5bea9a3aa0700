"""export, apply-delta, serve: a trained model outside this project."""

import contextlib
import logging
import sys
from typing import Annotated, Any

import typer

from sml_dist.cli.app import Json, Verbose, app, err, filled, in_file_system, out, print_json, warn
from sml_dist.spec import many


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Folder of a run, or of one of its checkpoints.")],
    output: Annotated[str, typer.Option(callback=in_file_system, help="Folder to write; it must not exist yet.")],
    since: Annotated[str | None, typer.Option(callback=filled, help="An export: write only what has changed since, as a delta.")] = None,
    quantize: Annotated[
        str | None, typer.Option(callback=filled, help="Table precision: none, int8 or int4; with --since, must match that export.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="Checkpoint step (default: the best).")] = None,
    onnx: Annotated[bool, typer.Option(help="Write the dense part as ONNX too.")] = True,
    model_license: Annotated[str, typer.Option(help="For the model card; with --since, that export's unless given.")] = "",
    data_license: Annotated[str, typer.Option(help="For the model card; with --since, that export's unless given.")] = "",
    as_json: Json = False,
) -> None:
    """A run's model as a folder that other systems load, or what has changed in it since an earlier export."""
    from sml_dist.review.follow import track_export
    from sml_dist.serve.export import export as run_export

    licences = {"model": model_license, "data": data_license}
    if since is None:
        found = run_export(run, output, step=step, quantize=quantize or "none", onnx=onnx, licences=licences)
        track_export(run, output, warn)
        show(found, as_json)
        return
    from sml_dist.serve.delta import export_since

    show(export_since(run, since, output, step=step, quantize=quantize, onnx=onnx, licences=licences), as_json)


@app.command()
def apply_delta(
    base: Annotated[str, typer.Argument(help="An export.")],
    deltas: Annotated[list[str], typer.Argument(help="Deltas, in the order in which they were made.")],
    output: Annotated[str, typer.Option(callback=in_file_system, help="Folder to write; it must not exist yet.")],
    as_json: Json = False,
) -> None:
    """An export with deltas applied: byte for byte the full export of the last."""
    from sml_dist.serve.delta import apply

    show(apply(base, deltas, output), as_json)


@app.command()
def serve(
    export: Annotated[str, typer.Argument(help="Folder of an export, or a link; a link moved to another export changes the model in use.")],
    host: Annotated[str, typer.Option(help="Address to listen at; any but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    token_file: Annotated[
        str | None, typer.Option(callback=filled, help="File of the bearer token; or the environment's SML_DIST_TOKEN.")
    ] = None,
    replicas: Annotated[int, typer.Option(help="Processes that score.")] = 1,
    max_rows: Annotated[int, typer.Option(help="Maximum rows per request.")] = 4096,
    max_list_values: Annotated[int, typer.Option(help="Maximum values per request in lists without a max_length.")] = 1 << 18,
    max_body_bytes: Annotated[int, typer.Option(help="Maximum body bytes per request.")] = 8 << 20,
    concurrency: Annotated[int, typer.Option(help="Requests of a replica at a time; more get status 429.")] = 256,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """A web service on Ray Serve: scores, health, metrics, and a page to try a row."""
    import os

    from sml_dist.serve.launch import running, until_stopped
    from sml_dist.session import ray_session

    arguments: dict[str, Any] = {
        "export": os.path.abspath(export), "token_file": token_file and os.path.abspath(token_file), "replicas": replicas,
        "max_rows": max_rows, "max_list_values": max_list_values, "max_body_bytes": max_body_bytes, "concurrency": concurrency,
    }  # fmt: skip

    stdout = sys.stdout

    def tell(address: str) -> None:
        with contextlib.redirect_stdout(stdout):  # while Ray runs it is standard error, for what others print
            if as_json:
                print_json({"address": address, "export": export})
            else:
                out.print(f"serving {export} at {address} (Ctrl-C stops it)", soft_wrap=True, highlight=False)

    if not verbose:  # at each start Serve says that it joins itself and that options are not applied
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with ray_session(replicas, verbose=verbose), running(arguments, host, port) as address:
        until_stopped(lambda: tell(address), lambda line: err.print(line, soft_wrap=True, highlight=False, markup=False))


def show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        out.print(
            f"{found['export']}: version {found['version']}, {many(found['files'], 'file')}, {found['bytes']:,} bytes", soft_wrap=True
        )
