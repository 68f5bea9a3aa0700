"""Laws of synthetic logs: known, repeatable, and as hard as they say."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from sml_dist.data import synthetic
from sml_dist.data.dataset import MANIFEST, ROW_GROUP_ROWS, arrow_schema, read_manifest, required
from sml_dist.data.synthetic import PlantedModel, hashed_weights, synth, table_sizes, zipf_ids
from sml_dist.spec import InputError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """60,000 rows with tables small enough to learn from so few."""
    root = tmp_path_factory.mktemp("synth") / "data"
    return root, synth(60_000, str(root), table_rows=300, seed=3)


def columns(root, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = pq.read_table(root / split).combine_chunks()
    return (
        rows["ids"].chunk(0).flatten().to_numpy().reshape(rows.num_rows, -1),
        rows["dense"].chunk(0).flatten().to_numpy().reshape(rows.num_rows, -1),
        rows["label"].to_numpy(),
    )


def files(root) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        synth(1_000, str(tmp_path / name), seed=seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["train/part-00000.parquet"] != files(tmp_path / "c")["train/part-00000.parquet"]


def test_rows_do_not_depend_on_how_they_are_cut_into_files(tmp_path, monkeypatch):
    rows = 3 * ROW_GROUP_ROWS + 5
    synth(rows, str(tmp_path / "one"), table_rows=200, valid=0, test=0)
    monkeypatch.setattr(synthetic, "FILE_ROWS", ROW_GROUP_ROWS)
    manifest = synth(rows, str(tmp_path / "many"), table_rows=200, valid=0, test=0)
    assert [file.row_groups for file in manifest.splits["train"].files] == [[ROW_GROUP_ROWS]] * 3 + [[5]]
    for one, many in zip(columns(tmp_path / "one", "train"), columns(tmp_path / "many", "train"), strict=True):
        np.testing.assert_array_equal(one, many)


def test_the_manifest_counts_what_the_files_hold(dataset):
    root, manifest = dataset
    assert read_manifest(str(root)) == manifest
    assert manifest.rows_read == manifest.rows_kept == 60_000 == sum(split.rows for split in manifest.splits.values())
    assert {name: split.rows for name, split in manifest.splits.items()} == {"train": 48_000, "valid": 6_000, "test": 6_000}
    schema = arrow_schema(manifest.fields, manifest.dense, weight=False, group=False, timestamp=False)
    for name, split in manifest.splits.items():
        labels = columns(root, name)[2]
        assert set(labels) == {0, 1}
        assert (len(labels), labels.sum()) == (split.rows, split.positives)
        for file in split.files:
            parquet = pq.ParquetFile(root / file.path)
            assert parquet.schema_arrow.equals(required(schema))
            assert [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)] == file.row_groups


def test_ids_lie_in_their_tables_and_reach_both_ends(dataset):
    root, manifest = dataset
    ids = columns(root, "train")[0]
    assert (ids.min(axis=0) == 0).all()
    np.testing.assert_array_equal(ids.max(axis=0), [field.rows - 1 for field in manifest.fields])


def test_the_best_auc_and_logloss_are_those_of_the_true_probabilities(dataset):
    root, manifest = dataset
    model = PlantedModel.planted(3, [field.rows for field in manifest.fields], 13, manifest.source["synth"]["zipf"])
    for name, best in manifest.best.items():
        ids, dense, labels = columns(root, name)
        probability = 1 / (1 + np.exp(-model.logits(ids, dense)))
        assert best.auc == pytest.approx(roc_auc_score(labels, probability), abs=1e-6)
        assert best.logloss == pytest.approx(log_loss(labels, probability), abs=1e-9)
    assert set(manifest.best) == {"train", "valid", "test"}


@pytest.mark.parametrize("seed", range(4))
def test_the_best_auc_is_near_080_and_the_base_rate_near_a_quarter_whatever_the_tables(seed):
    model = PlantedModel.planted(seed, table_sizes([100, 10_000, 4_300_000, 40_000_000][seed], 26), 13, 1.1)
    _, _, logits, labels = model.draw("train", 0, 50_000)
    assert roc_auc_score(labels, logits) == pytest.approx(0.80, abs=0.02)
    assert labels.mean() == pytest.approx(0.25, abs=0.01)


def test_the_best_logloss_lies_below_the_entropy_of_the_base_rate(dataset):
    for name, split in dataset[1].splits.items():
        rate = split.positives / split.rows
        assert dataset[1].best[name].logloss < 0.9 * -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))


def test_a_linear_learner_closes_most_of_the_gap_and_a_non_linear_rest_remains(dataset):
    root, manifest = dataset
    offsets = np.cumsum([0, *(field.rows for field in manifest.fields)])

    def features(ids, dense):
        starts = np.arange(0, ids.size + 1, ids.shape[1])
        return hstack([csr_matrix((np.ones(ids.size), (ids + offsets[:-1]).ravel(), starts), (len(ids), offsets[-1])), dense]).tocsr()

    ids, dense, labels = columns(root, "train")
    learner = LogisticRegression(C=0.3, max_iter=200).fit(features(ids, dense), labels)
    ids, dense, labels = columns(root, "valid")
    gap = (roc_auc_score(labels, learner.decision_function(features(ids, dense))) - 0.5) / (manifest.best["valid"].auc - 0.5)
    assert 0.75 < gap < 0.98


def test_no_row_of_one_split_is_in_another(dataset):
    root, _ = dataset
    rows = [{row.tobytes() for row in columns(root, split)[1]} for split in ("train", "valid", "test")]
    assert [len(split) for split in rows] == [48_000, 6_000, 6_000]
    assert len(set.union(*rows)) == 60_000


@pytest.mark.parametrize("exponent", [0, 0.7, 1, 1.1, 2])
def test_ids_follow_the_stated_distribution(exponent):
    size, draws = 50, 200_000
    ids = zipf_ids(np.random.default_rng(0).random((draws, 1)), np.array([size]), exponent)[:, 0]
    edges = np.arange(1, size + 2, dtype=float)
    mass = np.diff(np.log(edges) if exponent == 1 else edges ** (1 - exponent) / (1 - exponent))
    np.testing.assert_allclose(np.bincount(ids, minlength=size) / draws, mass / mass.sum(), atol=0.004)


def test_zipf_ids_of_the_ends_of_the_unit_interval_stay_in_the_table():
    ends = np.array([[0.0] * 3, [np.nextafter(1, 0)] * 3])
    np.testing.assert_array_equal(zipf_ids(ends, np.array([1, 7, 2**31 - 1]), 1.1), [[0, 0, 0], [0, 6, 2**31 - 2]])


def test_hashed_weights_are_standard_and_independent_between_fields_and_components():
    ids = np.tile(np.arange(100_000)[:, None], 3)
    fields = np.arange(3)
    weights = np.hstack([hashed_weights(0, fields, ids, 0), hashed_weights(0, fields, ids, 1), hashed_weights(1, fields, ids, 0)])
    assert np.abs(weights.mean(axis=0)).max() < 0.02
    np.testing.assert_allclose(np.cov(weights.T), np.eye(9), atol=0.02)
    assert np.abs(np.corrcoef(weights[1:, 0], weights[:-1, 0])[0, 1]) < 0.02


@pytest.mark.parametrize("total", [52, 1_000, 15_000, 4_300_000, 33_762_577, 100_000_000])
def test_table_sizes_sum_to_the_total_and_keep_criteos_small_fields(total):
    sizes = table_sizes(total, 26)
    assert sum(sizes) == total
    assert min(sizes) >= 1
    if 1_000 <= total < 33_762_577:
        assert [sizes[i] for i in (5, 8, 16, 19)] == [24, 3, 10, 4]


def test_sizes_may_be_given_by_field_and_other_shapes_than_criteos_work(tmp_path):
    manifest = synth(500, str(tmp_path / "a"), fields=3, dense=0, table_rows=[5, 1, 700], valid=0.2, test=0)
    assert [field.rows for field in manifest.fields] == [5, 1, 700]
    assert list(manifest.splits) == ["train", "valid"]
    assert pq.read_schema(tmp_path / "a" / manifest.splits["train"].files[0].path).names == ["ids", "label"]
    synth(200, str(tmp_path / "b"), fields=1, dense=1, table_rows=10)


def test_progress_ends_at_the_number_of_rows(tmp_path):
    seen = []
    synth(40_000, str(tmp_path / "a"), table_rows=100, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 40_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": 3}, "rows must be at least 100, not 3"),
        ({"valid": 0.6, "test": 0.5}, "valid 0.6 and test 0.5"),
        ({"fields": 0}, "^fields 0 is too small; give at least 1$"),
        ({"zipf": -1}, "^zipf -1 is too small; give at least 0$"),
        ({"table_rows": 20}, "table_rows 20 is not a total for 26 fields; give 52"),
        ({"seed": -1}, "^seed -1 is too small; give at least 0$"),
        ({"table_rows": [4, 5]}, "2 sizes; give 26"),
        ({"table_rows": [0] * 26}, "from 1 to"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_anything_is_written(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        synth(**({"rows": 1_000, "output": str(tmp_path / "a")} | change))
    assert not (tmp_path / "a").exists()


def test_a_finished_dataset_is_replaced_only_on_request(tmp_path):
    synth(500, str(tmp_path), seed=0)
    with pytest.raises(InputError, match="already holds a prepared dataset"):
        synth(500, str(tmp_path), seed=1)
    assert read_manifest(str(tmp_path)).source["synth"]["seed"] == 0
    synth(500, str(tmp_path), seed=1, overwrite=True)
    assert read_manifest(str(tmp_path)).source["synth"]["seed"] == 1


def test_a_folder_of_someone_elses_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "part-00000.parquet").write_text("mine")
    with pytest.raises(InputError, match="holds files"):
        synth(500, str(tmp_path))
    assert files(tmp_path) == {"train/part-00000.parquet": b"mine"}


def test_a_run_that_fails_midway_leaves_no_dataset_and_the_next_one_succeeds(tmp_path):
    def stop(done: int) -> None:
        if done > 20_000:
            assert not (tmp_path / "a" / MANIFEST).exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synth(50_000, str(tmp_path / "a"), table_rows=100, progress=stop)
    with pytest.raises(InputError, match="not a prepared dataset"):
        read_manifest(str(tmp_path / "a"))
    assert synth(50_000, str(tmp_path / "a"), table_rows=100) == read_manifest(str(tmp_path / "a"))
