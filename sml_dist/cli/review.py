"""report: runs and sweeps as pages."""

from typing import Annotated

import typer

from sml_dist.cli.app import Json, app, in_file_system, out, print_json


@app.command()
def report(
    folders: Annotated[list[str], typer.Argument(help="Folder of a run or of a sweep; several runs stand side by side.")],
    output: Annotated[str | None, typer.Option(callback=in_file_system, help="HTML file; by default report.html in the folder.")] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page: a run, a sweep, or several runs side by side. Runs and sweeps end with it by themselves."""
    from sml_dist.review.report import write_report

    found = write_report(folders, output)
    print_json(found) if as_json else out.print(f"{found['report']} ({found['bytes'] / 1e6:.1f} MB)", soft_wrap=True, highlight=False)
