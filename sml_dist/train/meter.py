"""How quickly training goes, and its loss, between two lines of the log and over all of a run."""

import time


class Meter:
    """Time, rows and loss of the steps since the last reading: mean loss, samples/s and the share of time spent waiting for data."""

    def __init__(self) -> None:
        self.reset()
        self.total_seconds = self.total_wait = 0.0
        self.total_rows = 0
        self.first_batch_seconds = 0.0

    def reset(self) -> None:
        self.started, self.waited, self.rows, self.loss, self.weight = time.monotonic(), 0.0, 0, 0.0, 0.0

    def start(self, waited: float) -> None:
        """The pipeline gave its first batch: time counts from here."""
        self.first_batch_seconds = waited
        self.reset()

    def step(self, rows: int, loss: float, weight: float, waited: float) -> None:
        """`loss` is a sum over rows that weigh `weight` together."""
        self.rows += rows
        self.loss += loss
        self.weight += weight
        self.waited += waited

    def read(self) -> dict[str, float]:
        """What happened since the last reading, in which some row weighed something; starts the next."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        self.total_seconds += seconds
        self.total_wait += self.waited
        self.total_rows += self.rows
        values = {
            "loss": self.loss / self.weight,
            "samples_per_second": round(self.rows / seconds, 1),
            "data_wait_fraction": round(self.waited / seconds, 4),
        }
        self.reset()
        return values

    def totals(self) -> dict[str, float]:
        """Over all readings; evaluations, checkpoints and the wait for the first batch do not count."""
        seconds = max(self.total_seconds, 1e-9)
        return {
            "samples_per_second": round(self.total_rows / seconds, 1),
            "data_wait_fraction": round(self.total_wait / seconds, 4),
            "first_batch_seconds": round(self.first_batch_seconds, 2),
        }
