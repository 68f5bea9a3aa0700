"""Where a worker's time went: seconds by phase, always counted; and a trace of some steps by torch's profiler, on demand."""

import contextlib
import gzip
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import profile, record_function, schedule, supported_activities

SETTLE_STEPS = 20  # before the first that is traced: allocators and caches are warm by then
TABLE_ROWS = 60


class Clock:
    """Seconds by phase. One phase ends where the next begins, so that they add up to the time since the clock was made.

    start: from the worker's first line to its first batch. data_wait: for the batches after it. collate: an Arrow table to tensors; for
    a GPU a thread does that and the copy, beside the step, and what the step waits for it is data_wait. embedding_forward: the tables'
    lookups, with the exchanges of ids and of what they found. dense_forward, dense_backward: the model, with DDP's all-reduce and the
    exchange of the embeddings' gradients, which run beside each other. communication: the workers' agreement on whether all numbers are
    finite, and so the wait for the slowest of them. embedding_backward: the tables' update by their fused optimiser. health: see health.py.
    optimizer: the dense part's, and data_parallel tables'. evaluation and checkpoint: while training waits for them. other: the rest.

    Entering a phase takes 0.2 microseconds. A GPU runs behind its host, whose time this is: what it waits for the device
    falls to the phase that reads a number back, which is communication. Compiling falls to dense_forward and _backward.
    """

    def __init__(self) -> None:
        self.phase, self.since = "start", time.perf_counter()
        self.spent: dict[str, float] = defaultdict(float)

    def enter(self, phase: str) -> None:
        now = time.perf_counter()
        self.spent[self.phase] += now - self.since
        self.phase, self.since = phase, now

    def seconds(self) -> dict[str, float]:
        """By phase, the longest first."""
        self.enter(self.phase)
        return {phase: round(seconds, 3) for phase, seconds in sorted(self.spent.items(), key=lambda item: -item[1])}


class TracedClock(Clock):
    """Its phases are ranges in the profiler's trace too."""

    def __init__(self) -> None:
        super().__init__()
        self.range = record_function(self.phase).__enter__()

    def enter(self, phase: str) -> None:
        super().enter(phase)
        self.range.__exit__(None, None, None)
        self.range = record_function(phase).__enter__()


@contextlib.contextmanager
def tracing(folder: Path, steps: int) -> Iterator[Callable[[], None]]:
    """Call the value at each step's end: `steps` of them, once training has settled, go into `folder`: trace.json.gz (for
    ui.perfetto.dev or chrome://tracing) and table.txt, operators by their own time. No steps, no files and no cost."""
    if not steps:
        yield lambda: None
        return
    plan = schedule(wait=SETTLE_STEPS, warmup=2, active=steps, repeat=1)
    with profile(activities=supported_activities(), schedule=plan, on_trace_ready=lambda done: write(done, folder)) as tracer:
        yield tracer.step


def write(done: profile, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    (folder / "table.txt").write_text(done.key_averages().table(sort_by=order, row_limit=TABLE_ROWS, max_name_column_width=60))
    done.export_chrome_trace(str(folder / "trace.json"))
    with gzip.open(folder / "trace.json.gz", "wb", compresslevel=3) as file:
        file.write((folder / "trace.json").read_bytes())
    (folder / "trace.json").unlink()
