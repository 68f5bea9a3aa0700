"""Nodes of a local cluster go and come under a run with `train.num_workers: [1, 3]`: it shrinks, grows, and uses each row once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sml_dist.data.synthetic import synth

pytestmark = [pytest.mark.faults, pytest.mark.timeout(700)]


@pytest.mark.long
def test_a_lost_node_shrinks_the_run_and_new_ones_grow_it(tmp_path):
    synth(50_000, str(tmp_path / "data"), fields=6, dense=4, table_rows=300)
    command = [sys.executable, "-m", "tests.faults.elastic", str(tmp_path / "data"), str(tmp_path / "runs")]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with open(tmp_path / "log", "w") as log:
        root = Path(__file__).parents[2]
        found = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, timeout=650, cwd=root, check=False)
    assert found.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    result = json.loads(found.stdout.splitlines()[-1])
    print(result["told"], result["verified"])
    assert result["told"] == ["2 workers", "1 workers", "3 workers"]
    verified = result["verified"]
    assert verified["ok"] and (verified["missing"], verified["doubled"], verified["wrong"]) == (0, 0, 0)
    assert verified["workers"] in ([2, 1, 3], [2, 1, 2, 3]) and verified["rows"] > 0
