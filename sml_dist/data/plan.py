"""Which rows each stream reads in which order: pure NumPy, no Ray.

An epoch lays the dataset's row groups end to end (permuted by (seed, epoch), full ones first) and cuts these N rows into *windows* of C x L
rows, C streams by L rows of a full row group. Stream c reads the c-th piece of each window, so a full row group is decoded by one stream
and once. Only the last window has pieces of other lengths; they differ by at most one row. Inside a piece rows are permuted by (seed,
epoch, window, stream).

Global batch b is the union over streams of their rows [b*m, (b+1)*m), m = B / C. It does not depend on the number of
workers: worker r of W reads C/W streams that lie side by side in every window. Where W does not divide C some workers
read one stream less and pad each batch to the size of the others'.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sml_dist.spec import InputError


@dataclass(frozen=True)
class Slice:
    """Rows [start, stop) of a row group, whose row 0 is row `first` of the dataset."""

    group: int
    start: int
    stop: int
    first: int


@dataclass(frozen=True)
class Layout:
    """The row groups of an epoch end to end: `order[i]` covers rows [edges[i], edges[i + 1]) of it, and begins with row `firsts[i]` of the
    dataset."""

    order: np.ndarray
    edges: np.ndarray
    firsts: np.ndarray

    def slices(self, begin: int, end: int) -> list[Slice]:
        """Rows [begin, end) of the epoch."""
        slices, i = [], int(np.searchsorted(self.edges, begin, side="right")) - 1
        while begin < end:
            edge, stop = int(self.edges[i]), min(end, int(self.edges[i + 1]))
            if stop > begin:
                slices.append(Slice(int(self.order[i]), begin - edge, stop - edge, int(self.firsts[i])))
            begin, i = stop, i + 1
        return slices


@dataclass(frozen=True)
class Reading:
    """What one reader task does: read `slices` one after another, `take` these rows of them; not all are `real`."""

    slices: list[Slice]
    take: np.ndarray  # int64 (rows,), rows of every stream in turn: row i of each stream, then row i + 1 ...
    real: np.ndarray  # bool (rows,), the others are padding: copies of weight 0


@dataclass(frozen=True)
class Cursor:
    """The next batch to train on: `batch` of `epoch`. Committed with the weights."""

    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Plan:
    """The exact data plan of one split. `groups` holds the rows of each row group, `window` the rows of a full one."""

    groups: tuple[int, ...]
    streams: int
    batch_size: int
    window: int
    seed: int
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.batch_size % self.streams:
            low, high = self.batch_size // self.streams * self.streams, -(-self.batch_size // self.streams) * self.streams
            choice = f"{low} or {high}" if low else f"{high}"
            raise InputError(f"train.global_batch_size {self.batch_size} is not divisible by data.streams {self.streams}; try {choice}")
        if not sum(self.groups):
            raise InputError("the split to read holds no rows; prepare the dataset with a split rule that gives it some")

    @cached_property
    def rows(self) -> int:
        return sum(self.groups)

    @property
    def micro(self) -> int:
        """Rows of one stream in one global batch."""
        return self.batch_size // self.streams

    @property
    def windows(self) -> int:
        return -(-self.rows // (self.streams * self.window))

    @property
    def steps(self) -> int:
        """Batches of one epoch; the last is padded to full size."""
        longest = -(-self.rows // self.streams)
        return -(-longest // self.micro)

    def rows_before(self, cursor: Cursor) -> int:
        """Rows of a run before a cursor, padding aside."""
        return cursor.epoch * self.rows + min(cursor.batch * self.batch_size, self.rows)

    def share(self, rank: int, workers: int) -> range:
        """The streams that worker `rank` of `workers` reads; shares differ by at most one stream."""
        if workers > self.streams:
            raise InputError(f"data.streams {self.streams} is fewer than {workers} workers; set {self._enough(workers)}")
        first = [self._piece(self.streams, worker, workers) for worker in (rank, rank + 1)]
        return range(*first)

    def _enough(self, workers: int) -> str:
        """What to set for so many workers: streams that divide the batch, nearest to four each; where none do, the batch too."""
        wanted = 4 * workers
        dividing = [streams for streams in range(workers, 4 * wanted) if self.batch_size % streams == 0]
        if dividing:
            return f"data.streams to {min(dividing, key=lambda streams: (streams % workers > 0, abs(streams - wanted)))}"
        return f"data.streams to {wanted} and train.global_batch_size to {-(-self.batch_size // wanted) * wanted}"

    def lanes(self, workers: int) -> int:
        """Streams of the largest share: a worker's batch holds `lanes * micro` rows, padding included."""
        return -(-self.streams // workers)

    def order(self, epoch: int) -> np.ndarray:
        """The row groups of an epoch: shuffled and full ones first, so that windows and row groups coincide; or as they lie."""
        if not self.shuffle:
            return np.arange(len(self.groups))
        groups = self._random(epoch).permutation(len(self.groups))
        return groups[np.argsort(np.asarray(self.groups)[groups] != self.window, kind="stable")]

    def layout(self, epoch: int) -> Layout:
        order, sizes = self.order(epoch), np.asarray(self.groups)
        return Layout(order, np.concatenate([[0], np.cumsum(sizes[order])]), (np.cumsum(sizes) - sizes)[order])

    def slices(self, layout: Layout, window: int, share: range) -> list[Slice]:
        """What the streams of `share` read in a window of the epoch that is laid out so."""
        first, starts = self._starts(window, share)
        begin, end = first + starts[0], first + starts[-1]
        if begin == end:  # a worker without a row in the last window pads with another's row
            begin, end = self.rows - 1, self.rows
        return layout.slices(begin, end)

    def window_of(self, cursor: Cursor) -> tuple[int, int]:
        """The window that holds a cursor's first row, and how many rows of each stream lie before it in that window."""
        return divmod(cursor.batch * self.micro, self.window)

    def reading(
        self, epoch: int, window: int, share: range, skip: int = 0, lanes: int | None = None, slices: list[Slice] | None = None
    ) -> Reading:
        """What to read for the streams of `share` in one window, without the first `skip` rows of each stream.

        With more `lanes` than streams in the share, each row of the streams is followed by padding for the lanes left. Whoever knows the
        `slices` needs no more of the row groups than how many rows they hold together.
        """
        _, starts = self._starts(window, share)
        pieces = [
            self._permutation(epoch, window, stream, b - a) + a - starts[0] for stream, a, b in zip(share, starts, starts[1:], strict=False)
        ]
        take = interleave(pieces)
        last = window == self.windows - 1
        whole = (self.steps * self.micro - window * self.window) * len(share) if last else self.window * len(share)
        padding = np.resize(take if len(take) else np.zeros(1, np.int64), max(whole - len(take), 0))
        real = (np.arange(len(take) + len(padding)) < len(take))[skip * len(share) :]
        take = np.concatenate([take, padding])[skip * len(share) :]  # after padding: batch norm sees which rows those are copies of
        slices = slices or self.slices(self.layout(epoch), window, share)
        return widened(Reading(slices, take, real), len(share), lanes or len(share))

    def row_ids(self, reading: Reading) -> np.ndarray:
        """Dataset-wide numbers (row group order) of a reading's real rows, in the order they are read."""
        ids = np.concatenate([s.first + np.arange(s.start, s.stop) for s in reading.slices])
        return ids[reading.take[reading.real]]

    def numbers(self, reading: Reading) -> np.ndarray:
        """`row_ids` in their places among all of a reading's rows, -1 for padding."""
        numbers = np.full(len(reading.take), -1)
        numbers[reading.real] = self.row_ids(reading)
        return numbers

    def batches(self, epoch: int) -> Iterator[np.ndarray]:
        """The rows of each global batch of an epoch: their dataset-wide numbers."""
        ids = np.empty(0, np.int64)
        for window in range(self.windows):
            ids = np.concatenate([ids, self.numbers(self.reading(epoch, window, range(self.streams)))])
            whole = len(ids) // self.batch_size * self.batch_size
            for batch in ids[:whole].reshape(-1, self.batch_size):
                yield batch[batch >= 0]
            ids = ids[whole:]

    @staticmethod
    def _piece(size: int, index: int, pieces: int) -> int:
        """Where a piece starts when `size` things are cut into `pieces` that differ by at most one."""
        return index * (size // pieces) + min(index, size % pieces)

    def _starts(self, window: int, share: range) -> tuple[int, list[int]]:
        """A window's first row, and where after it the pieces of a share's streams begin and end."""
        first = window * self.streams * self.window
        size = min(self.rows - first, self.streams * self.window)
        return first, [self._piece(size, stream, self.streams) for stream in range(share.start, share.stop + 1)]

    def _permutation(self, epoch: int, window: int, stream: int, rows: int) -> np.ndarray:
        return self._random(epoch, window, stream).permutation(rows) if self.shuffle else np.arange(rows)

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, *key])))


def interleave(pieces: list[np.ndarray]) -> np.ndarray:
    """Row i of every piece, then row i + 1; lengths fall by at most one from the first piece to the last."""
    shortest = len(pieces[-1])
    even = np.stack([piece[:shortest] for piece in pieces], axis=1).reshape(-1)
    return np.concatenate([even, *(piece[shortest:] for piece in pieces)])


def widened(reading: Reading, streams: int, lanes: int) -> Reading:
    """The reading of `streams` streams with padding after each row of them, up to `lanes` rows."""
    if streams == lanes:
        return reading
    take, real = (np.repeat(part.reshape(-1, streams)[:, :1], lanes, axis=1) for part in (reading.take, np.zeros_like(reading.real)))
    take[:, :streams], real[:, :streams] = reading.take.reshape(-1, streams), reading.real.reshape(-1, streams)
    return Reading(reading.slices, take.reshape(-1), real.reshape(-1))
