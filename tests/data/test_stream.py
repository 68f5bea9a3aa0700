"""The stream gives what the plan says, in order, through a real Ray Data pipeline."""

import contextlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from ray.data import DataContext

from sml_dist.data.dataset import SplitWriter
from sml_dist.data.plan import Cursor, Plan
from sml_dist.data.stream import Source, Stream, Unhurried, WindowReader, held_bytes, placing, step_seconds, windows_ahead, with_weight
from sml_dist.session import LOCAL_ENVIRONMENT
from sml_dist.spec import InputError

WINDOW = 100
SCHEMA = pa.schema([("ids", pa.list_(pa.int32(), 2)), ("ids:m", pa.list_(pa.int32())), ("label", pa.float32())])


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    """1,234 rows in two files; the first id of a row is its number."""
    root, groups, first = str(tmp_path_factory.mktemp("d")), [], 0
    for part, rows in enumerate((834, 400)):
        numbers = np.arange(first, first + rows, dtype=np.int32)
        ids = pa.FixedSizeListArray.from_arrays(pa.array(np.stack([numbers, numbers % 7], 1).reshape(-1)), 2)
        lists = pa.array([[int(n)] * (n % 3) for n in numbers], pa.list_(pa.int32()))
        with SplitWriter(root, f"train/part-{part}.parquet", SCHEMA, row_group_rows=WINDOW) as writer:
            writer.write(pa.table([ids, lists, pa.array((numbers % 2).astype(np.float32))], schema=SCHEMA))
        groups += [(writer.file.path, i, n) for i, n in enumerate(writer.file.row_groups)]
        first += rows
    return Source(root, tuple(groups), 100)


def plan(source: Source, batch: int = 24) -> Plan:
    return Plan(source.rows, streams=4, batch_size=batch, window=WINDOW, seed=5)


def rows_of(table: pa.Table) -> list[int]:
    ids = table["ids"].combine_chunks().flatten().to_numpy().reshape(-1, 2)[:, 0]
    return [int(i) if w else -1 for i, w in zip(ids, table["weight"].to_numpy(), strict=True)]


def expected(source: Source, workers: int, rank: int, epochs: range) -> list[list[int]]:
    p = plan(source)
    ids = []
    for epoch in epochs:
        for window in range(p.windows):
            reading = p.reading(epoch, window, p.share(rank, workers), lanes=p.lanes(workers))
            numbers = np.full(len(reading.take), -1)
            numbers[reading.real] = p.row_ids(reading)
            ids += numbers.tolist()
    size = p.lanes(workers) * p.micro
    return [ids[i : i + size] for i in range(0, len(ids), size)]


def test_the_stream_is_the_plan_over_epochs_and_workers(ray_local, source):
    for workers in (1, 2, 3):
        for rank in range(workers):
            tables = list(Stream(source, plan(source), rank, workers, epochs=2, reader_cpus=0.5, numbered=True).batches())
            assert [rows_of(t) for t in tables] == [t["row"].to_pylist() for t in tables] == expected(source, workers, rank, range(2))
    used = [i for rank in range(2) for batch in expected(source, 2, rank, range(1)) for i in batch if i >= 0]
    assert sorted(used) == list(range(1_234))


def test_a_stream_goes_on_from_any_cursor(ray_local, source):
    whole = expected(source, 2, 1, range(2))
    steps = plan(source).steps
    for cursor in (Cursor(0, 17), Cursor(1, 0), Cursor(1, steps - 1)):
        found = [rows_of(t) for t in Stream(source, plan(source), 1, 2, epochs=2).batches(cursor)]
        assert found == whole[cursor.epoch * steps + cursor.batch :]


def test_ray_data_knows_what_a_pipeline_sets_and_calls_its_callback_at_each_step(ray_local, source, monkeypatch):
    """One that it no longer called would cost training a factor of three, and nobody would hear of it."""
    stream, waited, slow = Stream(source, plan(source)), [], Unhurried.on_execution_step
    monkeypatch.setattr(Unhurried, "on_execution_step", lambda self, executor: waited.append(self.seconds) or slow(self, executor))
    list(stream.batches())
    assert set(waited) == {step_seconds(stream.prefetch)}
    assert vars(stream._pipeline(stream._reader(Cursor()), range(1)).context).keys() <= vars(DataContext()).keys()


def test_a_reader_task_is_sent_what_it_reads_and_no_other_row_groups(source):
    p = plan(source)
    for rank in range(3):
        read = WindowReader(source, p, rank, 3, begin=1, skip=10, numbered=True)
        for task in read.tasks(range(1, 2 * p.windows)):
            sent = pickle.loads(pickle.dumps(read))
            assert not sent.source.groups and len(sent.plan.groups) == 1
            assert sent({key: [value] for key, value in task.items()}).equals(read.window(task["window"]))


def test_multi_valued_rows_keep_their_values(source):
    p = plan(source)
    table = WindowReader(source, p, 0, 1).window(0)
    numbers = rows_of(table)
    assert table["ids:m"].to_pylist() == [[n] * (n % 3) for n in numbers]


def test_a_file_with_other_rows_than_the_manifest_says_is_noticed_before_a_row_of_it_is_used(tmp_path):
    schema = pa.schema([("label", pa.float32())])
    groups = (("train/part-0.parquet", 0, 100), ("train/part-0.parquet", 1, 50))
    for rows, said in ((130, "1: it has 30 rows where 50 were written"), (170, "1: it has 70 rows where 50"), (70, "[01]: ")):
        with SplitWriter(str(tmp_path), "train/part-0.parquet", schema, row_group_rows=100) as writer:
            writer.write(pa.table({"label": np.zeros(rows, np.float32)}, schema=schema))
        source = Source(str(tmp_path), groups, 10)
        read = WindowReader(source, Plan(source.rows, 2, 10, 100, 0), 0, 1)
        with pytest.raises(InputError, match=f"train/part-0.parquet, row group {said}.*; restore the file or prepare the dataset again"):
            read.window(0)


FAULTS_OF_A_WINDOW = """
import resource, statistics, sys
from sml_dist.data.plan import Plan
from sml_dist.data.stream import WindowReader, Source
rows = 16384
groups = tuple(("train/part-0.parquet", group, rows) for group in range(40))
read = WindowReader(Source(sys.argv[1], groups, 0), Plan((rows,) * 40, streams=4, batch_size=4096, window=rows, seed=0), 0, 1)

def faults(read_one):
    seen = []
    for task in read.tasks(range(15)):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        read_one({key: [value] for key, value in task.items()})
        seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return statistics.median(seen)

print(faults(lambda task: read.window(task["window"][0])), faults(read))
"""


def test_a_reader_task_keeps_its_memory_from_window_to_window(tmp_path):
    """It faults in less than half the pages of a window that the same reading does with Arrow's own pool, whose delay of a second before it
    gives memory back is none here: a run's windows come further apart than that.
    """
    columns = {"ids": np.arange(655_360 * 26, dtype=np.int32), "dense": np.arange(655_360 * 13, dtype=np.float32)}
    lists = {name: pa.FixedSizeListArray.from_arrays(pa.array(values), len(values) // 655_360) for name, values in columns.items()}
    table = pa.table({**lists, "label": np.zeros(655_360, np.float32)})
    with SplitWriter(str(tmp_path), "train/part-0.parquet", table.schema, row_group_rows=16384) as writer:
        writer.write(table)
    command = [sys.executable, "-c", FAULTS_OF_A_WINDOW, str(tmp_path)]
    done = subprocess.run(command, env=os.environ | LOCAL_ENVIRONMENT | {"MIMALLOC_PURGE_DELAY": "0"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    given_back, kept = map(float, done.stdout.split())
    assert kept < given_back / 2


def test_padding_weighs_nothing_and_own_weights_stay():
    table = pa.table({"label": [1.0, 0.0, 1.0]})
    assert with_weight(table, np.array([True, True, False]))["weight"].to_pylist() == [1, 1, 0]
    own = table.append_column("weight", pa.array([0.5, 2.0, 3.0], pa.float32()))
    assert with_weight(own, np.array([True, False, False]))["weight"].to_pylist() == [0.5, 0, 0]


def test_a_flipped_bit_in_a_data_file_is_noticed(ray_local, tmp_path):
    schema = pa.schema([("label", pa.float32())])
    with SplitWriter(str(tmp_path), "train/part-0.parquet", schema) as writer:
        writer.write(pa.table({"label": np.random.default_rng(0).random(1000).astype(np.float32)}, schema=schema))
    path = tmp_path / "train/part-0.parquet"
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 3] ^= 4
    path.write_bytes(blob)
    source = Source(str(tmp_path), (("train/part-0.parquet", 0, 1000),), 10)
    p = Plan((1000,), 2, 10, 1000, 0)
    with pytest.raises(InputError, match="part-0.parquet, row group 0: .*restore the file"):
        list(Stream(source, p).batches())


@pytest.mark.parametrize("readers", ["near", "data_nodes"])
def test_where_readers_stand_changes_no_row(ray_local, source, readers):
    tables = Stream(source, plan(source), 1, 2, readers=readers).batches()
    assert [rows_of(t) for t in tables] == expected(source, 2, 1, range(1))


def test_readers_near_prefer_this_node_and_those_on_data_nodes_take_no_other(ray_local):
    near = placing("near")["scheduling_strategy"]
    assert (near.node_id, near.soft) == (ray_local.get_runtime_context().get_node_id(), True)
    assert placing("data_nodes") == {"label_selector": {"sml-dist/role": "data"}} and placing("anywhere") == {}


def test_what_readers_may_hold_grows_with_streams_and_windows_and_not_with_the_data(source):
    held = held_bytes(source, plan(source), prefetch=2)
    assert held == held_bytes(source, replace(plan(source), groups=source.rows * 100), prefetch=2) == 3 * 4 * WINDOW * 100


@pytest.mark.parametrize(
    ("asked", "gpu", "room", "windows"),
    [(None, False, 1e9, 2), (None, True, 1e9, 16), (None, True, 96e4, 8), (None, True, 1e3, 2), (5, True, 1, 5), (1, False, 1, 1)],
)
def test_a_gpu_is_read_for_by_as_many_as_half_of_the_object_stores_hold(source, monkeypatch, asked, gpu, room, windows):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"object_store_memory": room})
    assert windows_ahead(asked, source, plan(source), gpu) == windows
    assert asked or windows == 2 or held_bytes(source, plan(source), windows) <= room / 2


def test_as_many_windows_are_read_ahead_as_asked_for_and_no_more(ray_local, source, tmp_path):
    """Of 2 MB each, while one batch of the first is all that anybody took; nor before Ray Data knows how large one is."""

    class Heavy(WindowReader):
        def window(self, number: int, pieces=None) -> pa.Table:
            (tmp_path / str(number)).touch()
            time.sleep(0.5)
            rows = super().window(number, pieces)
            return rows.append_column("weighty", pa.array([bytes((2 << 20) // rows.num_rows)] * rows.num_rows))

    class Watched(Stream):
        def _reader(self, start: Cursor) -> WindowReader:
            return Heavy(self.source, self.plan, self.rank, self.workers)

    heavy = replace(source, row_bytes=(2 << 20) // (4 * WINDOW))
    with contextlib.closing(Watched(heavy, plan(heavy), epochs=20, prefetch=8).batches()) as batches:
        next(batches)
        while len(list(tmp_path.iterdir())) < 7:
            time.sleep(0.1)
        assert settled(lambda: len(list(tmp_path.iterdir()))) <= 9


def settled(count: Callable[[], int]) -> int:
    """What `count` gives once it has not changed for two seconds."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 2:
        time.sleep(0.1)
        if (now := count()) != last:
            last, since = now, time.monotonic()
    return last


def test_an_executor_steps_the_more_often_the_more_windows_it_has_ahead():
    assert [step_seconds(windows) for windows in (1, 2, 4, 16)] == [0.1, 0.1, 0.05, 0.0125]


def test_a_cluster_with_no_cpu_left_to_read_with_is_named(ray_local, source, monkeypatch):
    """Ray Data itself would wait for ever, and say nothing."""

    @ray_local.remote(num_cpus=8)
    class All:
        def there(self) -> bool:
            return True

    taken = All.remote()
    ray_local.get(taken.there.remote())
    monkeypatch.setattr("sml_dist.data.stream.ROOM_SECONDS", 0.0)
    with pytest.raises(InputError, match="hold all 8 CPUs of the cluster, none is left to read with"):
        next(Stream(source, plan(source)).batches())
    ray_local.kill(taken)
    monkeypatch.undo()
    assert next(Stream(source, plan(source)).batches()).num_rows
