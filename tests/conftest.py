"""One local Ray for the whole session, and where the real data lies."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from sml_dist.session import LOCAL_ENVIRONMENT

REAL_DATA = Path(os.environ.get("SML_DIST_DATA", Path(__file__).parents[1] / "../shared/data"))

# How long an example takes says how busy the machine is: pytest's own limit ends what hangs.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def one_thread():
    """On the small tensors of a test two threads wait for each other longer than they compute."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def ray_local():
    """A Ray instance of our own, with more logical CPUs than cores so that readers run beside workers."""
    import ray

    os.environ.update(LOCAL_ENVIRONMENT)
    labels = {"sml-dist/role": "data"}  # readers may be told to read on such nodes alone
    ray.init("local", num_cpus=8, object_store_memory=500_000_000, include_dashboard=False, logging_level="warning", labels=labels)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not REAL_DATA.exists():
        pytest.skip(f"real data not found at {REAL_DATA}; set SML_DIST_DATA")
    return REAL_DATA
