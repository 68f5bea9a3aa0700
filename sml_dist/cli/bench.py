"""bench: how fast it is here."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from sml_dist.cli.app import Json, app, err, fail, in_file_system, out, print_json

PEERS = "Peers are measured where SML_BENCH_PEERS names the Python of an environment with fuxictr==2.3.10 and deepctr-torch==0.3.0."


@app.command(epilog=PEERS)
def bench(
    cases: Annotated[
        list[str] | None, typer.Argument(help="Of those that --list shows; by default all that this machine has the devices for.")
    ] = None,
    output: Annotated[
        str, typer.Option(callback=in_file_system, help="Folder for results; its datasets stay in bench.work inside it.")
    ] = "bench",
    rounds: Annotated[int | None, typer.Option(min=1, help="Readings of each arm, instead of the case's own number.")] = None,
    compare: Annotated[str | None, typer.Option(help="An earlier bench.json to compare with.")] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="Name the cases and end.")] = False,
    as_json: Json = False,
) -> None:
    """Measure throughput on this machine; writes bench.json, bench.md and bench.png. Bounds are shown, not enforced."""
    from sml_dist.bench.cases import CASES
    from sml_dist.bench.report import markdown, plot
    from sml_dist.bench.run import run
    from sml_dist.spec import RunError

    if list_cases and as_json:
        print_json({case.name: case.says for case in CASES.values()})
        return
    if list_cases:
        for case in CASES.values():
            out.print(f"{case.name:20} {case.says}", highlight=False, soft_wrap=True)
        return
    for name in cases or []:
        if name not in CASES:
            fail(f"case {name!r} is not one of {', '.join(CASES)}")
    old, folder = earlier(compare), Path(output)
    found = run(cases or here(CASES.values()), folder, rounds, lambda line: err.print(line, highlight=False))
    (folder / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
    text = markdown(found, old)
    (folder / "bench.md").write_text(text)
    plot(found, folder / "bench.png")
    if as_json:
        print_json(found["cases"][0] | {"machine": found["machine"]} if len(found["cases"]) == 1 else found)
    else:
        out.print(text, highlight=False, soft_wrap=True)
    if found["failed"]:
        raise RunError(f"not measured: {', '.join(found['failed'])}")


def here(cases: Iterable[Any]) -> list[str]:
    """Those that this machine has the devices for."""
    import torch

    return [case.name for case in cases if torch.cuda.is_available() or not case.gpu]


def earlier(path: str | None) -> dict[str, Any] | None:
    """The result of an earlier run, which can be compared with."""
    from sml_dist.bench.report import comparable

    if path is None:
        return None
    try:
        return comparable(json.loads(Path(path).read_text()))
    except OSError as error:
        fail(f"--compare {path} cannot be read ({error.strerror}); name an earlier bench.json")
    except ValueError as error:
        fail(f"--compare {path} is no bench.json ({error}); name an earlier one")
