"""plan: a cluster that is not here."""

import sys
from typing import Annotated

import typer

from sml_dist.cli.app import Json, Set, app, filled, print_json


@app.command()
def plan(
    config: Annotated[str, typer.Argument(help="YAML file; configs/plans/ has two.")],
    world_size: Annotated[int, typer.Option(help="Ranks of the cluster.")],
    local_world_size: Annotated[int, typer.Option(help="Ranks of a node.")] = 8,
    device: Annotated[str, typer.Option(help="cuda | cpu")] = "cuda",
    hbm: Annotated[str, typer.Option(help="Memory of each GPU.")] = "80GB",
    ddr: Annotated[str, typer.Option(help="Memory of each node; 0: a GPU's tables and checkpoints get none of it.")] = "1TB",
    intra_bw: Annotated[str | None, typer.Option(help="Bytes per second between ranks of a node (default 600GB; 1GB for CPUs).")] = None,
    inter_bw: Annotated[str | None, typer.Option(help="Bytes per second from a rank to other nodes (default 25GB; 1GB for CPUs).")] = None,
    hbm_bw: Annotated[str | None, typer.Option(help="Bytes per second of a GPU's memory (default 2TB).")] = None,
    tables: Annotated[
        str | None,
        typer.Option(
            callback=filled,
            help="YAML of the tables, as in fields: [{name: user_id, rows: 500000000}], instead of the dataset at data.path.",
        ),
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Tables' places, memory and time by rank on a cluster you do not have here; exit status 1 if they do not fit."""
    from sml_dist.embeddings.capacity_report import as_dict, make_cluster, plan_run
    from sml_dist.embeddings.capacity_text import report_text

    cluster = make_cluster(
        world_size=world_size, local_world_size=local_world_size, device=device,
        hbm=hbm, ddr=ddr, intra_bw=intra_bw, inter_bw=inter_bw, hbm_bw=hbm_bw,
    )  # fmt: skip
    made = plan_run(config, overrides, cluster, tables)
    print_json(as_dict(made)) if as_json else sys.stdout.write(report_text(made))
    sys.exit(0 if made.fits else 1)
