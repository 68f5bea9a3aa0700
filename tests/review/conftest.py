"""W&B with no key and no folder but the test's own."""

import sys

import pytest


@pytest.fixture(autouse=True)
def wandb_alone(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb_own" / name))
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # or the next test's server is this one's
