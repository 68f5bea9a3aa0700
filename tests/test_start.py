import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(60)

UNTIL_RAY = """
import sys
import sml_dist.session, sml_dist.train.check

def start(*_, **__):
    print(*(name for name in ("ray.train", "torchrec", "fbgemm_gpu", "sklearn", "scipy", "pandas", "wandb") if name in sys.modules))
    raise SystemExit

sml_dist.train.check.check = lambda run: None
sml_dist.session.ray_session = start
from sml_dist.cli import app
app(sys.argv[1:])
"""


@pytest.mark.parametrize("command", ["train configs/smoke.yaml", "sweep configs/sweeps/sml.yaml"])
def test_only_what_is_needed_is_imported_before_ray_starts(command):
    """Each of these takes between a third of a second and one and a half."""
    ended = subprocess.run([sys.executable, "-c", UNTIL_RAY, *command.split()], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
