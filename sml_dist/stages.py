"""How work that takes long says how far it is."""

from collections.abc import Callable

ShowStage = Callable[[str, int, int], None]  # (stage, done, of)


def silent(stage: str, done: int, of: int) -> None:
    """Shows nothing."""
