"""study: the paper's studies."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from sml_dist.cli.app import Json, Verbose, app, fail, in_file_system, out, print_json, stage_bars

STUDIES = {
    "ablation": "runs paired by seed over a grid",
    "depth": "towers of 3 to 100 layers",
    "landscape": "what the theorem says and does not",
    "online": "logs in time order, predicted before they are trained on",
}
SET = (
    "Override a key of the file: --set train.lr=0.01 of depth and online, --set seed=1 of landscape, --set 'set=\\[train.epochs=2]' "
    "of ablation, for its base, after the file's `set`. May be repeated."
)
ON_RAY = ("ablation", "online")


@app.command(epilog="; ".join(f"{name}: {what}" for name, what in STUDIES.items()))
def study(
    name: Annotated[str, typer.Argument(help=" | ".join(STUDIES))],
    config: Annotated[str, typer.Argument(help="YAML file; configs/studies/ has one for each study.")],
    output: Annotated[str, typer.Option(callback=in_file_system, help="Folder to write.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help=SET)] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run one of the studies. Ablation and online, started again, run what is not done yet; the others begin anew."""
    import importlib

    from sml_dist.held import held
    from sml_dist.session import ray_session

    if name not in STUDIES:
        fail(f"study {name!r} is not one of {', '.join(STUDIES)}")
    module = importlib.import_module(f"sml_dist.studies.{name}")
    module.check(config, overrides)  # before a folder is made, and before Ray starts
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(output))
        except OSError as error:
            fail(f"--output {output} cannot be written ({error.strerror}); name another folder")
        if name in ON_RAY:
            stack.enter_context(ray_session(verbose=verbose))
        found = module.run(config, overrides, output, stack.enter_context(stage_bars()))
    if as_json:
        print_json(found)
    else:
        out.print((Path(found["folder"]) / "README.md").read_text(), highlight=False, soft_wrap=True)
        out.print(f"written to {found['folder']}", soft_wrap=True, highlight=False)
