"""`sml-dist report`: a run's page, a sweep's, or several runs side by side, as one HTML file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sml_dist.review.compare_page import compare_page
from sml_dist.review.read import is_sweep, read_run, read_sweep
from sml_dist.review.run_page import run_page
from sml_dist.spec import InputError, one_line
from sml_dist.whole_files import WholeFiles

FILE = "report.html"


def write_report(folders: list[str], output: str | None = None) -> dict[str, Any]:
    """Writes the page, by default into the folder, or with several runs into the current one. Raises InputError."""
    target = Path(output) if output else Path(folders[0] if len(folders) == 1 else ".") / FILE
    text = page_of(folders)
    try:
        WholeFiles(target.parent).write(target.name, text)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror}); name another with --output") from None
    return {"report": str(target), "bytes": len(text.encode())}


def page_of(folders: list[str]) -> str:
    if len(folders) == 1 and is_sweep(folders[0]):
        from sml_dist.review.sweep_page import sweep_page  # with its statistics, which a run has no need of

        return sweep_page(read_sweep(folders[0]))
    if len(folders) == 1:
        return run_page(read_run(folders[0]))
    if sweeps := [folder for folder in folders if is_sweep(folder)]:
        raise InputError(f"{sweeps[0]} is a sweep; several runs can stand side by side, a sweep has a page of its own")
    return compare_page([read_run(folder) for folder in folders])


def report_quietly(folder: str, say: Callable[[str], None]) -> None:
    """At the end of a run or sweep: a page that cannot be made is one line, and no reason to fail."""
    try:
        write_report([folder])
    except Exception as error:  # such as of a file that someone has put into the folder
        say(f"no report was written ({type(error).__name__}: {one_line(error)[:200]}); try `sml-dist report {folder}`")
