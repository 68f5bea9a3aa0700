"""A worker's share of the plan as one Ray Data pipeline for the whole run: order kept, read-ahead bounded."""

import pickle
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import TaskPoolStrategy
from ray.data._internal.execution import streaming_executor_state
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sml_dist.data.dataset import Manifest, read_rows, row_groups
from sml_dist.data.plan import Cursor, Layout, Plan, Slice
from sml_dist.spec import InputError

ERROR = "input error"
Piece = tuple[Slice, tuple[str, int, int]]  # and its row group: path, number, rows
DATA_NODES = {"sml-dist/role": "data"}
ROOM_SECONDS = 60.0
FEWEST, MOST = 2, 16  # windows ahead, unless configured
MAX_TASKS = 2_000  # windows of one pipeline; Ray Data puts every task's input into the object store before the first starts


@dataclass(frozen=True)
class Source:
    """A split of a prepared dataset: where each of its row groups lies."""

    root: str
    groups: tuple[tuple[str, int, int], ...]  # (file, row group, rows)
    row_bytes: int

    @classmethod
    def of(cls, root: str, manifest: Manifest, split: str) -> "Source":
        ids = len(manifest.single) + 4 * len(manifest.multi) + sum(field.length for field in manifest.sequences)
        width = 4 * (ids + len(manifest.dense) + len(manifest.label_columns)) + 20
        return cls(root, tuple(row_groups(manifest.splits[split])), width)

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(rows for _, _, rows in self.groups)


@dataclass(frozen=True)
class Stream:
    """The batches of worker `rank` of `workers` over all epochs: equally long on all workers, padding of weight 0 included.

    `reader_cpus` are Ray's logical CPUs for each reader task, `prefetch` how many windows may wait in the object store.
    `numbered` adds the column `row`: each row's number in the dataset, -1 for padding. `readers`: which nodes read (config/data.py).
    """

    source: Source
    plan: Plan
    rank: int = 0
    workers: int = 1
    _: KW_ONLY
    epochs: int = 1
    reader_cpus: float = 0.5
    prefetch: int = 2
    numbered: bool = False
    readers: str = "anywhere"

    def of(self, source: Source) -> "Stream":
        """The same share of another split."""
        return replace(self, source=source, plan=replace(self.plan, groups=source.rows))

    def batches(self, start: Cursor = Cursor()) -> Generator[pa.Table]:  # noqa: B008
        """From the cursor's batch to the end of the last epoch; reads nothing before the first batch is asked for."""
        return rebatch(self._blocks(start), self.plan.lanes(self.workers) * self.plan.micro)

    def _blocks(self, start: Cursor) -> Generator[pa.Table]:
        read, end = self._reader(start), self.epochs * self.plan.windows
        until_there_is_room(self.reader_cpus)
        for segment in range(read.begin, end, MAX_TASKS):
            dataset = self._pipeline(read, range(segment, min(segment + MAX_TASKS, end)))
            for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                if block.column_names == [ERROR]:
                    raise InputError(block[ERROR][0].as_py())
                yield block

    def _reader(self, start: Cursor) -> "WindowReader":
        """Reads from the cursor on."""
        first, skip = self.plan.window_of(start)
        begin = start.epoch * self.plan.windows + first
        return WindowReader(self.source, self.plan, self.rank, self.workers, begin, skip, self.numbered)

    def _pipeline(self, read: "WindowReader", windows: range) -> ray.data.Dataset:
        dataset = ray.data.from_items([*read.tasks(windows)], override_num_blocks=len(windows))
        context, options = dataset.context, dataset.context.execution_options
        context.enable_progress_bars = False
        # The limit on memory is what bounds the readers. Ray Data would also rest them while three windows lie ready, and hold all but a
        # quarter of the memory for those under way, where the consumer keeps three or four that are done.
        context.downstream_capacity_backpressure_ratio = None
        context.op_resource_reservation_ratio = 0.75
        seconds = step_seconds(self.prefetch)
        waits = min(seconds, streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S)  # of every executor in this process
        streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = waits
        context.custom_execution_callback_classes = [partial(Unhurried, seconds)]
        options.preserve_order = True
        window_bytes = read.lanes * self.plan.window * self.source.row_bytes
        options.resource_limits = options.resource_limits.copy(object_store_memory=self.prefetch * max(window_bytes, 1 << 20))
        # Until a first window is done, Ray Data does not know that one takes memory, and would begin as many as there are CPUs.
        tasks = TaskPoolStrategy(size=min(self.prefetch, len(windows)))
        resources = {"num_cpus": self.reader_cpus, **placing(self.readers)}
        return dataset.map_batches(read, batch_size=None, batch_format="numpy", compute=tasks, **resources)


def held_bytes(source: Source, plan: Plan, prefetch: int) -> int:
    """What the pipelines of all workers together may hold in object stores: `prefetch` windows of every stream, and half as many for
    evaluation."""
    return (prefetch + ahead_in_evaluation(prefetch)) * plan.streams * plan.window * source.row_bytes


def windows_ahead(asked: int | None, source: Source, plan: Plan, gpu: bool) -> int:
    """As many as asked for; else two, or for a GPU, which outruns two readers tenfold, 16 or what half of the object stores hold."""
    if asked or not gpu:
        return asked or FEWEST
    room = ray.cluster_resources().get("object_store_memory", 0) / 2
    return max(FEWEST, min(MOST, int(MOST * room / held_bytes(source, plan, MOST))))


def step_seconds(windows: int) -> float:
    """The seconds after which an executor looks again for windows that are read and has others read: the fewer, the more are ahead."""
    return min(0.1, 0.2 / windows)


def ahead_in_evaluation(windows: int) -> int:
    """Half as many as in training, whose readers rest by then."""
    return max(1, windows // 2)


def until_there_is_room(cpus: float) -> None:
    """Returns once the cluster has so many CPUs left for a reader: Ray Data would wait for ever, and say nothing. Raises InputError."""
    deadline = time.monotonic() + ROOM_SECONDS
    while ray.available_resources().get("CPU", 0) < cpus:
        if time.monotonic() > deadline:
            all_cpus = ray.cluster_resources().get("CPU", 0)
            way_out = "start nodes with more --num-cpus, or lower train.num_workers or data.reader_cpus"
            raise InputError(f"workers or others hold all {all_cpus:g} CPUs of the cluster, none is left to read with; {way_out}")
        time.sleep(1)


def placing(readers: str) -> dict[str, Any]:
    """Ray's options for tasks that read near this process, on data nodes alone, or anywhere."""
    if readers == "near":
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)}
    return {"label_selector": DATA_NODES} if readers == "data_nodes" else {}


class DirectStream(Stream):
    """The same batches read by this process when they are asked for: where a pipeline would cost more than it brings."""

    def _blocks(self, start: Cursor) -> Generator[pa.Table]:
        read = self._reader(start)
        for window in range(read.begin, self.epochs * self.plan.windows):
            yield read.window(window)


class Unhurried(ExecutionCallback):
    """Makes an executor's step take so many seconds at least.

    While the consumer is behind, Ray Data 2.60 steps without a pause: 40 % of a core and most of the interpreter's lock for
    each open pipeline, inside the training process. Two of them slowed training on two cores from 94,000 to 28,000 samples/s and less.
    """

    def __init__(self, seconds: float):
        self.seconds, self.stepped = seconds, time.monotonic()

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(max(0.0, self.stepped + self.seconds - time.monotonic()))
        self.stepped = time.monotonic()


def rebatch(blocks: Iterable[pa.Table], size: int) -> Generator[pa.Table]:
    """Tables of `size` rows from tables of any length, as views except where a batch spans two of them."""
    rest = None
    for block in blocks:
        table = pa.concat_tables([rest, block]) if rest is not None and rest.num_rows else block
        whole = table.num_rows - table.num_rows % size
        for offset in range(0, whole, size):
            yield table.slice(offset, size)
        rest = table.slice(whole)


class WindowReader:
    """A reader task: one window of a worker's streams, decoded once, permuted and interleaved by one take.

    Ray Data unpickles it for every task: with the row groups of 8 billion rows that took 72 ms, and finding a window's among them 39 more.
    So it travels without them, and each task brings those that it reads.
    """

    def __init__(self, source: Source, plan: Plan, rank: int, workers: int, begin: int = 0, skip: int = 0, numbered: bool = False):
        self.source, self.plan, self.begin, self.skip, self.numbered = source, plan, begin, skip, numbered
        self.share, self.lanes = plan.share(rank, workers), plan.lanes(workers)

    def __getstate__(self) -> dict[str, Any]:
        source, plan = replace(self.source, groups=()), replace(self.plan, groups=(self.plan.rows,))
        return vars(self) | {"source": source, "plan": plan}

    def tasks(self, windows: range) -> Iterator[dict[str, Any]]:
        for epoch, numbers in groupby(windows, lambda number: number // self.plan.windows):
            layout = self.plan.layout(epoch)
            for number in numbers:
                yield {"window": number, "pieces": pickle.dumps(self._pieces(layout, number % self.plan.windows))}

    def _pieces(self, layout: Layout, window: int) -> list[Piece]:
        """What to read, and of which row groups."""
        return [(piece, self.source.groups[piece.group]) for piece in self.plan.slices(layout, window, self.share)]

    def __call__(self, task: dict[str, np.ndarray]) -> pa.Table:
        # Arrow's own pool gives a window's memory back to the system, which clears its pages anew for the next; that alone cost a window
        # of 262,144 rows 30 to 220 ms of a core, beside 100 for all else. The system's pool keeps it (session.py).
        pa.set_memory_pool(pa.system_memory_pool())
        try:
            return self.window(int(task["window"][0]), pickle.loads(task["pieces"][0]))
        except InputError as error:  # travels as a value: Ray would wrap it, and log it as a crash
            return pa.table({ERROR: [str(error)]})

    def window(self, number: int, pieces: list[Piece] | None = None) -> pa.Table:
        """Window `number`, counted from the first of the first epoch; its `pieces` are those that a task brings."""
        epoch, window = divmod(number, self.plan.windows)
        pieces = pieces or self._pieces(self.plan.layout(epoch), window)
        skip = self.skip if number == self.begin else 0
        reading = self.plan.reading(epoch, window, self.share, skip, self.lanes, [piece for piece, _ in pieces])
        parts = [
            read_rows(self.source.root, path, group, rows=rows).slice(piece.start, piece.stop - piece.start)
            for piece, (path, group, rows) in pieces
        ]
        rows = pa.concat_tables(parts).combine_chunks()
        table = with_weight(rows.take(pa.array(reading.take)), reading.real)
        if self.numbered:
            table = table.append_column("row", pa.array(self.plan.numbers(reading)))
        return table


def with_weight(table: pa.Table, real: np.ndarray) -> pa.Table:
    """The table with a weight column: its own or ones, and 0 where a row is not `real`."""
    own = "weight" in table.column_names
    weight = table["weight"].to_numpy().copy() if own else np.ones(table.num_rows, np.float32)
    weight[~real] = 0
    column = pa.array(weight)
    return table.set_column(table.column_names.index("weight"), "weight", column) if own else table.append_column("weight", column)
