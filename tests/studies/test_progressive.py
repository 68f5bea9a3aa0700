"""Predict, then train: what a pass over a log may know of each row, and what its curve says."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sml_dist.config.run import RunConfig, parse
from sml_dist.data.dataset import SplitWriter, arrow_schema, read_manifest, write_manifest
from sml_dist.data.synthetic import synth
from sml_dist.studies.progressive import CannotLearn, Predictions, in_order, progressive
from sml_dist.train.in_process import Laboratory, one_process
from sml_dist.train.loop import Progress
from sml_dist.train.metrics import ExactScores

SIZE, CHANGED = 16, 70  # the changed row lies in batch 4, rows 64 to 79


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("progressive")
    synth(1_000, str(folder / "data"), fields=4, dense=2, table_rows=100)
    return str(folder / "data")


@pytest.fixture(scope="module", autouse=True)
def process():
    with one_process(1):
        yield


def config(data: str, size: int = SIZE, steps: int | None = 8, **sml) -> RunConfig:
    return parse({
        "run": {"name": "x"},
        "data": {"path": data, "streams": 1, "shuffle": False},
        "model": {"name": "dnn", "tower": {"hidden": [8, 8]}, "sml": sml},
        "embedding": {"dim": 4, "lr": 0.1, "init_std": 0.1, "sharding": "table_wise"},
        "train": {"global_batch_size": size, "max_steps": steps, "lr": 0.01, "precision": "fp32", "threads": 1},
    })  # fmt: skip


def rewritten(data: str, output: Path, change) -> str:
    """The dataset with its training rows put through `change`, row numbers kept."""
    manifest = read_manifest(data)
    (only,) = manifest.splits["train"].files
    table = change(pq.read_table(f"{data}/{only.path}"))
    schema = arrow_schema(manifest.fields, manifest.dense, weight=False, group=False, timestamp=False)
    with SplitWriter(str(output), only.path, schema) as writer:
        writer.write(table.cast(schema))
    for name in ("valid", "test"):
        (output / name).symlink_to(Path(data, name))
    splits = manifest.splits | {"train": dataclasses.replace(manifest.splits["train"], files=[writer.file])}
    write_manifest(str(output), dataclasses.replace(manifest, splits=splits))
    return str(output)


def labels_of(data: str, split: str) -> np.ndarray:
    return np.concatenate([pq.read_table(f"{data}/{file.path}")["label"].to_numpy() for file in read_manifest(data).splits[split].files])


@pytest.mark.parametrize("norm", ["mtn", "batch"])
def test_a_label_changes_no_prediction_of_its_own_batch_or_before_and_some_after(data, tmp_path, norm):
    def flip(table: pa.Table) -> pa.Table:
        label = table["label"].to_numpy().copy()
        label[CHANGED] = 1 - label[CHANGED]
        return table.set_column(table.column_names.index("label"), "label", pa.array(label))

    other = rewritten(data, tmp_path / "flipped", flip)
    sml = {"norm": norm, "mtn": {"placement": "hidden"}}
    before, after = (progressive(config(path, **sml)).logits for path in (data, other))
    end = (CHANGED // SIZE + 1) * SIZE
    np.testing.assert_array_equal(before[:end], after[:end])
    assert (before[end:] != after[end:]).any()


def test_with_batch_norm_a_row_is_predicted_without_its_neighbours(data, tmp_path):
    """Served alone or in a batch: the rows beside it in its own batch change nothing, though they will change what is learnt."""

    def swap(table: pa.Table) -> pa.Table:
        places = np.arange(table.num_rows)
        places[65:80] = 65 + 300 + np.arange(15)  # row 64 stays, the rest of its batch is others'
        return table.take(pa.array(places))

    other = rewritten(data, tmp_path / "swapped", swap)
    sml = {"norm": "batch", "mtn": {"placement": "hidden"}}
    before, after = (progressive(config(path, **sml)).logits for path in (data, other))
    assert before[64] == pytest.approx(after[64], abs=1e-6)
    assert (before[65:80] != after[65:80]).all()


def test_rows_come_in_file_order_through_all_splits_each_once(data):
    expected = np.concatenate([labels_of(data, split) for split in ("train", "valid", "test")])
    found = progressive(config(data, 64, None))
    np.testing.assert_array_equal(found.labels, expected)  # 1,000 is no multiple of 64: padding is not among them
    tables = list(in_order(config(data, 64, None), read_manifest(data)))
    assert len(tables) == 16 and all(table.num_rows == 64 for table in tables)
    assert len(progressive(config(data, 64, 3)).labels) == 192


def test_a_pass_trains_as_the_trainer_does(data):
    run = config(data, steps=20)
    seen = progressive(run)
    laboratory, progress = Laboratory.of(run), Progress()
    for step, table in enumerate(laboratory.stream.batches()):
        batch = laboratory.trainer.collate(table)
        logit = laboratory.task.logit(batch).detach().numpy()
        np.testing.assert_allclose(seen.logits[step * SIZE : (step + 1) * SIZE], logit, atol=1e-6)
        if step == 19:
            break
        laboratory.trainer.step(table, progress)


def test_it_learns(data):
    curve = progressive(config(data, 16, None)).curve(4)
    assert curve[-1]["window auc"] > curve[0]["window auc"] + 0.02


def test_one_row_at_a_time_mtn_learns_and_batch_norm_cannot(data):
    alone = progressive(config(data, 1, 40, norm="mtn", mtn={"placement": "hidden"}))
    assert np.isfinite(alone.logits).all() and len(set(alone.logits)) == 40
    with pytest.raises(CannotLearn, match="batch norm has no variance"):
        progressive(config(data, 1, 40, norm="batch", mtn={"placement": "hidden"}))


def test_a_model_that_diverges_says_so(data):
    run = config(data)
    wild = dataclasses.replace(run, train=dataclasses.replace(run.train, optimizer="sgd", lr=1e30))
    with pytest.raises(CannotLearn, match="diverged"):
        progressive(wild)


def random_predictions(rows: int) -> Predictions:
    random = np.random.default_rng(0)
    return Predictions(
        random.normal(size=rows).astype(np.float32),
        random.integers(0, 2, rows).astype(np.float32),
        random.uniform(0.5, 2, rows).astype(np.float32),
    )


def test_the_cumulative_logloss_is_the_mean_of_what_was_predicted():
    found = random_predictions(203)
    for row in found.curve(5):
        p = 1 / (1 + np.exp(-found.logits[: row["rows"]].astype(np.float64)))
        y, w = found.labels[: row["rows"]], found.weights[: row["rows"]]
        assert row["logloss"] == pytest.approx(np.average(-y * np.log(p) - (1 - y) * np.log(1 - p), weights=w), rel=1e-6)
    scores = ExactScores()
    scores.add(found.logits, found.labels, found.weights)
    assert found.curve(5)[-1]["auc"] == pytest.approx(scores.result()["auc"])


def test_windows_partition_the_rows():
    found = random_predictions(203)
    curve = found.curve(6)
    ends = [row["rows"] for row in curve]
    sizes = np.diff([0, *ends])
    assert ends[-1] == 203 and sizes.max() - sizes.min() <= 1
    mass = np.array([found.weights[a:b].sum() for a, b in zip([0, *ends[:-1]], ends, strict=True)])
    parts = np.array([row["window logloss"] for row in curve])
    assert mass @ parts / mass.sum() == pytest.approx(curve[-1]["logloss"], rel=1e-5)
