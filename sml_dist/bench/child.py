"""python -m sml_dist.bench.child CASE FOLDER OUTPUT ROUNDS: measures one case; see run.py."""

import json
import sys
from pathlib import Path

from sml_dist.bench.case import measure
from sml_dist.bench.cases import CASES
from sml_dist.bench.workplace import Workplace


def main(name: str, folder: str, output: str, rounds: str) -> None:
    measure(CASES[name], Workplace(Path(folder).absolute()), int(rounds) or None, lambda found: Path(output).write_text(json.dumps(found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
