import pytest

from sml_dist.config.train import TrainConfig
from sml_dist.train.schedule import Schedule

SCHEDULES = ["constant", "cosine", "plateau"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_rollbacks_leave_of_the_rate_is_its_share_under_every_schedule(schedule):
    factor = Schedule(TrainConfig(schedule=schedule, lr=1e-3, warmup_steps=10), 100).factor
    for step in (0, 9, 10, 50, 80):
        assert factor(step, 0.5) == pytest.approx(factor(step) / 2)
    assert factor(99, 1e-9) == pytest.approx(1e-6 / 1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_rate_below_the_least_is_not_raised_to_it(schedule):
    factor = Schedule(TrainConfig(schedule=schedule, lr=1e-7, min_lr=1e-6), 100).factor
    assert all(factor(step) == 1.0 for step in (0, 50, 99))
