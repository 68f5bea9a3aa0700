"""Which code a run was started from."""

import subprocess
from typing import Any


def commit() -> dict[str, Any]:
    """{"commit": hash, "changed": whether tracked files differ from it} of the folder the command runs in; {} outside of git."""
    try:
        return {"commit": _git("rev-parse", "HEAD"), "changed": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):  # no git, no repository, or one that does not answer
        return {}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
