import subprocess
import sys

import pytest

from sml_dist.data.synthetic import synth

pytestmark = pytest.mark.timeout(60)

UNTIL_RAY = """
import sys
import sml_dist.session

def start(*_, **__):
    heavy = ("ray.train", "torch._dynamo", "torchrec", "fbgemm_gpu", "sklearn", "scipy", "pandas", "wandb")
    print(*(name for name in heavy if name in sys.modules))
    raise SystemExit

sml_dist.session.ray_session = start
from sml_dist.cli import app
app(sys.argv[1:])
"""


TRAIN = "train configs/smoke.yaml --set data.path=HERE/data --set run.storage=HERE/runs"  # and not the folder of `make demo`


@pytest.mark.parametrize("command", [TRAIN, "sweep configs/sweeps/sml.yaml"])
def test_only_what_is_needed_is_imported_before_ray_starts(command, tmp_path):
    """Each of these takes between a third of a second and one and a half."""
    synth(1_000, str(tmp_path / "data"), fields=3, table_rows=300)
    words = command.replace("HERE", str(tmp_path)).split()
    ended = subprocess.run([sys.executable, "-c", UNTIL_RAY, *words], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
