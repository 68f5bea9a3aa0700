"""The encoder: one path for prepare, scoring and serving."""

import numpy as np
import pyarrow as pa
import pytest

from sml_dist.data.clean import clean
from sml_dist.data.dataset import arrow_schema
from sml_dist.data.encode import Encoder
from sml_dist.data.hashing import hash64
from sml_dist.data.numeric import Statistics
from sml_dist.data.schema import load_schema
from sml_dist.data.vocab import Vocabulary
from tests.data.raw_logs import write_schema

RAW = {
    "click": ["1", "0", "1"],
    "price": ["7", "", "0"],
    "age": ["20", "40", ""],
    "site": ["s1", "rare", ""],
    "user": ["1", "2", "3"],
    "device": ["d", "d", ""],
    "tags": ["a|b|zzz", "", "b"],
    "time": ["0", "90000", "172800"],
    "w": ["1", "2", "0"],
}
TOKENS = {
    "price_log_square": ["3", "", "SP0"],
    "site": ["s1", ""],
    "user": ["2", "1"],
    "time_hour": ["0", "1"],
    "time_weekday": ["3", "4", "5"],
    "tags": ["b", "a"],
}


@pytest.fixture
def encoder(tmp_path) -> Encoder:
    vocabularies = {name: Vocabulary.of(name, pa.array(tokens)) for name, tokens in TOKENS.items()}
    return Encoder(
        load_schema(write_schema(tmp_path)), Statistics(moments={"age": (30.0, 10.0)}, edges={"age": [25.0, 30.0]}), vocabularies
    )


def rows(encoder, labelled=True, part=slice(None)):
    names = RAW if labelled else encoder.schema.inputs
    raw = pa.table({name: RAW[name][part] for name in names})
    return clean(raw, np.arange(len(raw)), encoder.schema, labelled=labelled)[0]


def test_every_kind_of_field_is_encoded_as_the_manifest_says(encoder):
    table = encoder.encode(rows(encoder))
    assert [(field.name, field.rows) for field in encoder.fields] == [
        ("price_log_square", 4),
        ("age_bucket", 4),
        ("site", 3),
        ("user", 3),
        ("device", 50),
        ("time_hour", 3),
        ("time_weekday", 4),
        ("tags", 3),
    ]
    assert encoder.dense == ["price", "age"]
    d, missing = (hash64(pa.array(["d", ""]), "device") % np.uint64(50)).tolist()
    assert table["ids"].to_pylist() == [[1, 1, 1, 2, d, 1, 1], [2, 3, 0, 1, d, 2, 2], [3, 0, 2, 0, missing, 1, 3]]
    assert table["ids:tags"].to_pylist() == [[2, 1, 0], [], [1]]
    assert np.allclose(table["dense"].to_pylist(), [[np.log(8), -1], [0, 1], [0, 0]])
    assert table["label"].to_pylist() == [1, 0, 1] and table["weight"].to_pylist() == [1, 2, 0]
    assert table["group"].to_pylist() == [1, 2, 3] and table["timestamp"].to_pylist() == [0, 90000, 172800]
    assert table.schema.equals(arrow_schema(encoder.fields, encoder.dense, weight=True, group=True, timestamp=True))


def test_a_row_is_encoded_the_same_alone_and_in_a_batch(encoder):
    whole = encoder.encode(rows(encoder)).to_pylist()
    assert [encoder.encode(rows(encoder, part=slice(i, i + 1))).to_pylist()[0] for i in range(3)] == whole


def test_rows_without_a_label_are_encoded_to_the_same_features(encoder):
    labelled, bare = encoder.encode(rows(encoder)), encoder.encode(rows(encoder, labelled=False))
    assert set(labelled.column_names) - set(bare.column_names) == {"label", "weight"}
    assert bare.to_pylist() == labelled.select(bare.column_names).to_pylist()


def test_no_row_is_encoded_to_no_row(encoder):
    assert encoder.encode(rows(encoder, part=slice(0, 0))).num_rows == 0


def test_a_list_is_cut_to_its_first_values(encoder, tmp_path):
    text = (tmp_path / "schema.yaml").read_text().replace("min_count: 1}", "min_count: 1, max_length: 2}")
    (tmp_path / "short.yaml").write_text(text)
    short = Encoder(load_schema(str(tmp_path / "short.yaml")), encoder.statistics, encoder.vocabularies)
    assert short.encode(rows(short))["ids:tags"].to_pylist() == [[2, 1], [], [1]]
