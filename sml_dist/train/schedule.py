"""Learning rate schedules: each a factor on every optimiser's rate."""

import math
from dataclasses import dataclass

from sml_dist.config.train import TrainConfig


@dataclass(frozen=True)
class Schedule:
    """factor(step) = warm-up x decay. `total` is the number of steps planned; `plateau`, under any schedule, is the factor left by
    rollbacks and by evaluations that were no better."""

    config: TrainConfig
    total: int

    def factor(self, step: int, plateau: float = 1.0) -> float:
        warm = min(1.0, (step + 1) / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        floor, decay = min(1.0, self.config.min_lr / self.config.lr), plateau
        if self.config.schedule == "cosine":
            done = min(1.0, max(0, step - self.config.warmup_steps) / max(1, self.total - self.config.warmup_steps))
            decay *= (1 + math.cos(math.pi * done)) / 2
        return warm * max(floor, decay)
