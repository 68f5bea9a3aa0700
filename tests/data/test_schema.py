"""Schemas: what they mean, and the one line that a wrong one gets."""

from pathlib import Path

import pytest

from sml_dist.data.schema import Schema, built_in_names, load_schema
from sml_dist.spec import InputError, from_dict, to_dict

PROTOCOLS = [f"{log}{protocol}" for log in ("avazu", "criteo") for protocol in ("", "_x1", "_x4")]
BUILT_IN = [*PROTOCOLS, "frappe", "ml1m", "ml1m_labels", "ml1m_seen"]
BASE = "name: x\nformat: csv\nlabel: y\n"


def load(tmp_path: Path, text: str) -> Schema:
    (tmp_path / "s.yaml").write_text(text)
    return load_schema(str(tmp_path / "s.yaml"))


def test_the_built_in_schemas_load_by_name_and_survive_a_round_trip():
    assert built_in_names() == BUILT_IN
    for name in built_in_names():
        schema = load_schema(name)
        assert schema.name == name
        assert from_dict(Schema, to_dict(schema)) == schema


def test_configs_schemas_are_the_built_in_ones():
    folder = Path(__file__).parents[2] / "configs" / "schemas"
    for name in built_in_names():
        assert load_schema(str(folder / f"{name}.yaml")) == load_schema(name)


def test_criteo_has_thirteen_numbers_and_twenty_six_fields():
    schema = load_schema("criteo")
    assert [name for name, _, _ in schema.dense] == [f"I{i}" for i in range(1, 14)]
    assert [feature.name for feature in schema.features] == [f"C{i}" for i in range(1, 27)]
    assert len(schema.used) == 40


@pytest.mark.parametrize(
    ("span", "names"),
    [
        ("C9..C11", ["C9", "C10", "C11"]),
        ("C08..C10", ["C08", "C09", "C10"]),
        ("C0..C2", ["C0", "C1", "C2"]),
        ("x_00..x_01", ["x_00", "x_01"]),
        ("5..5", ["5"]),
    ],
)
def test_a_range_stands_for_its_columns_with_the_zeros_that_its_first_number_begins_with(tmp_path, span, names):
    schema = load(tmp_path, BASE + f"categorical: [{{columns: {span}}}]")
    assert [feature.name for feature in schema.features] == names


def test_a_number_can_be_dense_and_categorical_at_once(tmp_path):
    text = "numeric:\n- {columns: [a]}\n- {columns: [a], transform: log_square}\n- {columns: a, transform: bucket, buckets: 9}"
    schema = load(tmp_path, BASE + text)
    assert schema.dense == [("a", "a", "log1p")]
    assert [feature.name for feature in schema.features] == ["a_log_square", "a_bucket"]
    assert schema.used == ["y", "a"]


def test_multivalued_fields_come_last(tmp_path):
    schema = load(tmp_path, BASE + "multivalued: [{columns: tags, separator: ','}]\ncategorical: [{columns: c}]")
    assert [feature.name for feature in schema.features] == ["c", "tags"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("categorial: [{columns: a}]", "unknown key 'categorial'; did you mean 'categorical'?"),
        ("categorical: [{columns: a, mincount: 3}]", "unknown key 'categorical.0.mincount'; did you mean 'min_count'?"),
        ("multivalued: [{columns: tags}]", "'tags' holds lists in a text file: give the `separator` between their values"),
        ("categorical: [{columns: a}]\nsequences: [{columns: s, of: a, max_length: 3}]", "'s' holds lists in a text file"),
        ("categorical: [{min_count: 3}]", "key 'categorical.0.columns' is missing"),
        ("multivalued: [{column: tags}]", "unknown key 'multivalued.0.column'; did you mean 'columns'?"),
        ("categorical: [{hsh: 3}]", "key 'categorical.0.columns' is missing"),
        ("categorical: [{columns: a, min_count: 2, hash: 9}]", "categorical.0: give `min_count` (vocabulary) or `hash` (rows), not both"),
        ("numeric: [{columns: a, transform: log}]", "numeric.0.transform: input should be 'log1p'"),
        ("numeric: [{columns: a, transform: bucket}]", "numeric.0: `buckets` belongs to `transform: bucket`, and that needs it"),
        ("categorical: [{columns: [a, C3..C1]}]", "categorical.0.columns: C3..C1 counts down; write C1..C3"),
        ("numeric: [{columns: [a, a]}]", "column 'a' is a dense feature twice"),
        ("categorical: [{columns: [a, b]}, {columns: b}]", "column 'b' makes a categorical field twice"),
        ("categorical: [{columns: [a, y]}]", "column 'y' is the label, so it cannot be a feature"),
        ("columns: [y, a]\ncategorical: [{columns: b}]", "column 'b' is used but not in `columns`"),
        ("categorical: [{columns: a}]\ntimestamp: {column: t, format: '%F %Z'}", "timestamp: `format` has %Z, but the name of a time zone"),
        ("group: a", "no feature: give numeric, categorical or multivalued columns"),
        ("numeric: [{columns: a}]", "no categorical field, and a model needs one: name a categorical column, or let `transform: bucket`"),
        ("labels: {z: z, w: w}\ncategorical: [{columns: a}]", "give one `label`, or two or more under `labels`"),
        ("categorical: [{columns: a}]\nsequences: [{columns: s, of: b, max_length: 3}]", "column 'b' is what a sequence is `of`, but no"),
        ("categorical: [{columns: [a, 's:2']}]\nsequences: [{columns: s, of: a, max_length: 3}]", "column 's:2' makes a categorical field"),
        ("categorical: [{columns: a}]\nsequences: [{columns: y, of: a, max_length: 3}]", "column 'y' is the label"),
        ("categorical: [{columns: [c, a.b, a_b]}]", "fields 'a.b' and 'a_b' would both have the table t_a_b; rename one of the columns"),
        ("categorical: [{columns: a}]\nsequences: [{columns: s, of: a}]", "key 'sequences.0.max_length' is missing"),
    ],
)
def test_a_wrong_schema_is_refused_with_one_line_that_names_the_key(tmp_path, text, message):
    with pytest.raises(InputError) as error:
        load(tmp_path, BASE + text)
    assert message in str(error.value) and str(error.value).startswith(f"schema {tmp_path}/s.yaml: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "key 'label' is missing"),
        ("labels: {z: z}", "give one `label`, or two or more under `labels`"),
        ("labels: {z: z, w: {column: a, at_lest: 4}}", "did you mean 'at_least'?"),
        ("label: {column: z, positive: [yes]}", "label.positive.0: YAML reads this as True, not as text; quote it exactly as it is"),
        ("label: {column: z, positive: []}", "label.positive: list should have at least 1 item"),
        ("label: {column: z, positive: ['a'], at_least: 1}", "give `at_least` (of a number) or `positive` (spellings), not both"),
        ("labels: {z: z, w: c}", "column 'c' is the label, so it cannot be a feature"),
    ],
)
def test_wrong_labels_are_refused_with_one_line(tmp_path, labels, message):
    with pytest.raises(InputError) as error:
        load(tmp_path, f"name: x\nformat: csv\n{labels}\ncategorical: [{{columns: c}}]")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_several_labels_may_be_of_one_column(tmp_path):
    text = "labels: {like: {column: r, at_least: 4}, love: {column: r, at_least: 5}}\ncategorical: [{columns: c}]"
    schema = load(tmp_path, f"name: x\nformat: csv\n{text}")
    assert list(schema.targets) == ["like", "love"] and schema.used == ["r", "c"]
    assert from_dict(Schema, to_dict(schema)) == schema


@pytest.mark.parametrize("text", ["a: [", "- a\n- b", "", "\xff\xfe"])
def test_what_is_no_mapping_is_refused_with_one_line(tmp_path, text):
    (tmp_path / "s.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="^schema ") as error:
        load_schema(str(tmp_path / "s.yaml"))
    assert "\n" not in str(error.value)


def test_a_sequence_has_no_table_whose_name_could_be_another_s(tmp_path):
    text = "format: parquet\ncategorical: [{columns: a_b}]\nsequences: [{columns: a.b, of: a_b, max_length: 3}]"
    assert [feature.name for feature in load(tmp_path, f"name: x\nlabel: y\n{text}").features] == ["a_b", "a.b"]


def test_an_unknown_name_is_answered_with_the_nearest_and_all_built_in_ones():
    with pytest.raises(InputError, match=f"did you mean criteo.*{', '.join(BUILT_IN)}"):
        load_schema("cirteo")
    with pytest.raises(InputError, match="does not exist"):
        load_schema("nowhere/s.yaml")
