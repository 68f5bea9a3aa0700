"""What a study whose runs train in its own processes takes of `train`."""

from sml_dist.config.train import TrainConfig


def refuse_elsewhere(train: TrainConfig) -> None:
    """Raises ValueError for a place that the runs would not come to: they train in one process each, on the CPU."""
    asked = {
        "device cuda": train.device == "cuda",
        f"num_workers {train.num_workers}": train.worker_range[1] > 1,
        f"worker_resources {train.worker_resources}": bool(train.worker_resources),
    }
    for what in (what for what, there in asked.items() if there):
        raise ValueError(f"train.{what}: this study trains in one process on the CPU; leave it out")
