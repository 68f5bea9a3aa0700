"""What all commands share: the application, options that mean the same everywhere, ways to show results and to end."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from sml_dist.spec import InputError, RunError, json_safe, mounted
from sml_dist.stages import ShowStage

HELP = "Distributed training of click-through-rate models with Skip Meta Logit blocks."
INTERRUPTED = 130
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False, help=HELP)
err = Console(stderr=True, markup=False)
out = Console(markup=False)  # what is shown holds values of logs and names of files

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a key: --set train.epochs=2. May be repeated.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what Ray and its workers log.")]


def main() -> NoReturn:
    """Runs the command; turns an InputError into one line and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except InputError as error:
        fail(str(error))
    except typer.TyperException as error:
        if line := error.format_message():
            fail(line)
        status = 2  # without a command the help has been shown, and the message is empty
    except RunError as error:
        fail(str(error), status=1)
    except typer.Abort:
        status = INTERRUPTED
    if status == INTERRUPTED:  # which Typer turns a KeyboardInterrupt into, and returns
        err.print(f"stopped{way_on(sys.argv[1:])}")
    sys.exit(status)


def way_on(words: list[str]) -> str:
    """What a command does when it is given again after an interrupt. Of a job nothing is said: it may go on by itself."""
    command, *rest = words
    if command in ("submit", "jobs"):
        return ""
    resumes = command in ("train", "sweep", "predict") or (command == "study" and not {"ablation", "online"}.isdisjoint(rest))
    return f"; the same command {'resumes it' if resumes else 'starts over'}"


def fail(line: str, status: int = 2) -> NoReturn:
    err.print("error:", style="bold red", end=" ")
    err.print(line, highlight=False, soft_wrap=True)
    sys.exit(status)


def warn(line: str) -> None:
    """Something that the command goes on without."""
    err.print(line, style="yellow", highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(json_safe(value), allow_nan=False) + "\n")


def filled(option: typer.CallbackParam, value: str | None) -> str | None:
    """The callback of a path or the like: an empty one would be the working folder, or count as left out. Raises InputError."""
    if value == "":
        raise InputError(f"{option.opts[0]} is empty; give it a value{'' if option.required else ', or leave it out'}")
    return value


def in_file_system(path: str | None) -> str | None:
    """The callback of an --output that is written as a path: fsspec's URLs would become folders of their names. Raises InputError."""
    try:
        return None if path is None else mounted(path)
    except ValueError as error:
        raise InputError(f"--output {error}") from None


@contextlib.contextmanager
def stage_bars() -> Iterator[ShowStage]:
    """Bars on standard error: call the value with (stage, done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show
