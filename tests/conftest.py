"""One local Ray for the whole session, and where the real data lies."""

import contextlib
import functools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from sml_dist.bare_ray import bare
from sml_dist.session import ALONE_ENVIRONMENT, LOCAL_ENVIRONMENT, environment

REAL_DATA = Path(os.environ.get("SML_DIST_DATA", Path(__file__).parents[1] / "../shared/data"))
REAL_LOGS = {
    "criteo": {"inputs": "criteo/criteo_sample_72k.tsv.gz", "split": "order:64000,8000"},
    "avazu": {"inputs": "avazu/avazu_first_hour_9k.csv.gz", "split": "order:0.8,0.2"},
    "ml1m": {"inputs": "ml1m/ml1m_half.parquet", "split": "time:0.8,0.1,0.1"},
    "frappe": {"train": "frappe/train.csv.gz", "valid": "frappe/valid.csv.gz"},
}

# What has rich and typer write colours and other widths than in a test; they read it as they are imported.
for name in ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "COLUMNS", "TERMINAL_WIDTH"):
    os.environ.pop(name, None)

os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # tests ask this machine alone, by its own address too

# How long an example takes says how busy the machine is: pytest's own limit ends what hangs.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_configure(config):
    """Only the tests of a GPU see one. All others train on the CPU, in Ray's processes and whatever else they start, too."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def one_thread():
    """On the small tensors of a test two threads wait for each other longer than they compute."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def ray_local():
    """A Ray instance of our own, with more logical CPUs than cores so that readers run beside workers."""
    import ray

    labels = {"sml-dist/role": "data"}  # readers may be told to read on such nodes alone
    with environment(LOCAL_ENVIRONMENT | ALONE_ENVIRONMENT), bare(logs=True):
        ray.init("local", num_cpus=8, object_store_memory=500_000_000, include_dashboard=False, logging_level="warning", labels=labels)
    yield ray
    ray.shutdown()


@pytest.fixture
def browser():
    """Chromium, the first of its names that starts: Ubuntu's may be a stub, or a snap that does not start here."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        for path in filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
            with contextlib.suppress(Error):
                yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
                return
        pytest.skip("no Chromium that starts is on the PATH (Debian: apt-get install chromium)")


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not REAL_DATA.exists():
        pytest.skip(f"real data not found at {REAL_DATA}; set SML_DIST_DATA")
    return REAL_DATA


@pytest.fixture(scope="session")
def real_dataset(ray_local, real_data, tmp_path_factory) -> Callable[[str], str]:
    """The dataset of the real logs of a schema's name, prepared once for all tests."""
    from sml_dist.data.prepare import prepare

    @functools.cache
    def prepared(name: str) -> str:
        output = str(tmp_path_factory.mktemp("real") / name)
        prepare(name, output, **{key: value if key == "split" else str(real_data / value) for key, value in REAL_LOGS[name].items()})
        return output

    return prepared


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory) -> Callable[..., str]:
    """A synthetic dataset of so many rows and such a shape, made once for all tests; nobody writes to it."""
    from sml_dist.data.synthetic import synth

    @functools.cache
    def made(rows: int, **shape: int) -> str:
        path = str(tmp_path_factory.mktemp("synthetic") / "data")
        synth(rows, path, **shape)
        return path

    return made
