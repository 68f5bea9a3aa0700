"""status: what a run is doing."""

import sys
from datetime import timedelta
from typing import Annotated

import typer

from sml_dist.cli.app import Json, app, out, print_json
from sml_dist.spec import many

STYLES = {"alive": "green", "starting": "yellow", "stopped": "yellow", "stalled": "bold red", "failed": "bold red", "done": "green"}


@app.command()
def status(run: Annotated[str, typer.Argument(help="Folder of a run; any fsspec URL.")], as_json: Json = False) -> None:
    """Whether a run is alive, stopped, stalled or done, and when it will finish; exit status 1 if it is stopped, stalled or failed."""
    from sml_dist.operations.run_status import run_status

    found = run_status(run)
    print_json(found) if as_json else show(found)
    sys.exit(1 if found["state"] in ("stopped", "stalled", "failed") else 0)


def show(found: dict) -> None:
    out.print(found["state"], style=STYLES[found["state"]], end="")
    out.print("".join(f", {part}" for part in parts(found)), highlight=False, soft_wrap=True)


def parts(found: dict) -> list[str]:
    """What there is to say, in the order of how much one wants to know it."""
    told = []
    if found["state"] == "stalled":
        told.append(
            f"last heard {span(found['heard_seconds_ago'])} ago ({found['doing']}); the same command goes on from the last checkpoint"
        )
    if "input_error" in found or "run_error" in found:
        told.append(found.get("input_error") or found["run_error"])
    if "step" in found:
        told.append(f"step {found['step']:,} of {found['total_steps']:,} ({found['step'] / max(found['total_steps'], 1):.0%})")
    if found.get("eta_seconds") is not None:
        told.append(f"{span(found['eta_seconds'])} to go")
    if "loss" in found and found["state"] not in ("done", "stopped"):
        told.append(
            f"loss {found['loss']:.4f}, {found['samples_per_second']:,.0f} samples/s, {found['data_wait_fraction']:.0%} waiting for data"
        )
    if "valid_auc" in found:
        told.append(f"{'best' if found['state'] == 'done' else 'last'} valid AUC {found['valid_auc']:.5f}")
    if "checkpoint_step" in found:
        told.append(f"checkpoint of step {found['checkpoint_step']:,} {span(found['checkpoint_age_seconds'])} ago")
    if found["restarts"]:
        told.append(many(found["restarts"], "restart"))
    if found["state"] == "stopped":
        told.append("the same command goes on from that checkpoint" if "checkpoint_step" in found else "the same command starts over")
    return told


def span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
