"""Behaviour sequences and several labels, from the raw log to tensors."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from sml_dist.data.dataset import read_manifest, read_rows
from sml_dist.data.vocab import read_tokens
from sml_dist.embeddings.batch import Collator, by_position
from sml_dist.spec import InputError, to_dict
from tests.data.histories import LENGTH, log, prepared
from tests.data.raw_logs import rows_of


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    return folder / "data", prepared(folder, 300)


@pytest.fixture(scope="module")
def table(made):
    root, manifest = made
    return read_rows(str(root), manifest.splits["train"].files[0].path, 0)


def test_a_sequence_holds_the_newest_values_in_order_as_ids_of_the_field_that_it_is_of(made):
    root, manifest = made
    ids = {token: row for row, token in enumerate(read_tokens(str(root), "film").to_pylist(), 1)}
    rows = [row for split in manifest.splits for row in rows_of(root, manifest, split)]
    for raw, row in zip(log(300).to_pylist(), rows, strict=True):
        assert row["ids"][1] == ids.get(str(raw["film"]), 0)
        assert row["ids:seen"] == [ids.get(str(film), 0) for film in raw["seen"][-LENGTH:]]


def test_a_sequence_has_no_table_and_no_vocabulary_of_its_own(made):
    root, manifest = made
    assert [field.name for field in manifest.tables] == ["user", "film"]
    assert manifest.features == ["user", "film", "seen:1", "seen:2", "seen:3", "seen:4"]
    assert sorted(path.name for path in (root / "vocab").iterdir()) == ["film.parquet", "user.parquet"]


def test_a_row_has_one_number_for_each_label_and_a_split_their_sums(made):
    root, manifest = made
    assert manifest.labels == ["like", "love"]
    raw = log(300)["rating"].to_numpy()
    wanted = np.stack([raw >= 4, raw >= 5], axis=1).astype(np.float32)
    found = np.array([row["label"] for split in manifest.splits for row in rows_of(root, manifest, split)], np.float32)
    np.testing.assert_array_equal(found, wanted)
    assert manifest.splits["train"].positives == wanted[:240].sum(axis=0).tolist()


def test_a_batch_has_each_position_as_a_feature_the_newest_first(made, table):
    batch = Collator(made[1])(table)
    lists = table["ids:seen"].to_pylist()
    for place in range(LENGTH):
        found = [row.tolist() for row in batch.ids[f"seen:{place + 1}"].to_dense()]
        assert found == [[past[-1 - place]] if len(past) > place else [] for past in lists]
    assert batch.label.tolist() == table["label"].to_pylist()


def test_a_slice_of_a_table_gives_the_slice_of_its_sequences(made, table):
    part = Collator(made[1])(table.slice(7, 5))
    assert part.ids["seen:1"].lengths().tolist() == [int(bool(past)) for past in table["ids:seen"].to_pylist()[7:12]]
    assert part.ids["seen:1"].values().tolist() == [past[-1] for past in table["ids:seen"].to_pylist()[7:12] if past]


def test_positions_beyond_a_rows_sequence_are_empty_and_longer_ones_lose_their_oldest():
    values, lengths = by_position(np.array([1, 2, 3, 4], np.int32), np.array([3, 0, 1], np.int32), 2)
    assert values.tolist() == [3, 4, 2] and lengths.tolist() == [1, 0, 1, 1, 0, 0]


def test_a_dataset_of_one_label_without_sequences_says_nothing_of_either(tmp_path):
    manifest = prepared(tmp_path, 100, labels="label: {column: rating, at_least: 4}", sequences="")
    assert read_manifest(str(tmp_path / "data")) == manifest
    assert not {"labels", "sequences"} & (to_dict(manifest).keys() | to_dict(manifest)["source"]["schema"].keys())
    assert set(to_dict(manifest)["fields"][0]) == {"name", "rows", "multivalued"}
    stored = pq.read_schema(tmp_path / "data" / manifest.splits["train"].files[0].path)
    assert str(stored.field("label").type) == "float" and isinstance(manifest.splits["train"].positives, float)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["fields"][2].pop("length"), "`of` and `length` go together"),
        (lambda m: m["fields"][2].update(length=0), "length"),
        (lambda m: m["fields"][2].update(of="age"), "seen has 31 rows of age, which is no field with as many"),
        (lambda m: m["fields"][2].update(rows=7), "seen has 7 rows of film"),
        (lambda m: m.pop("labels"), "2 sums of 1 labels"),
        (lambda m: m.update(stored_labels=["like", "love"]), "stored_labels is no key of it"),
    ],
)
def test_a_manifest_whose_sequence_or_labels_do_not_fit_is_damaged(made, tmp_path, change, said):
    manifest = to_dict(made[1])
    change(manifest)
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="dataset.json is damaged") as error:
        read_manifest(str(tmp_path))
    assert said in str(error.value) and "\n" not in str(error.value)
