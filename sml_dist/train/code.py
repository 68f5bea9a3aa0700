"""Which code a run was started from, and which packages it computes with."""

import subprocess
from importlib.metadata import distributions
from typing import Any

PACKAGES = ("sml-dist", "torch", "torchrec", "fbgemm-gpu-cpu", "fbgemm-gpu", "ray", "pyarrow")


def commit() -> dict[str, Any]:
    """{"commit": hash, "changed": whether tracked files differ from it} of the folder the command runs in; {} outside of git."""
    try:
        return {"commit": _git("rev-parse", "HEAD"), "changed": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):  # no git, no repository, or one that does not answer
        return {}


def versions() -> dict[str, str]:
    """Of those packages that are installed: of fbgemm it is one build or the other."""
    return {package: found.version for package in PACKAGES for found in [*distributions(name=package)][:1]}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
