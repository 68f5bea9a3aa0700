"""The public protocols: rows in the form of the benchmark's files (BARS) become the features that its runs were given."""

import math
from pathlib import Path

import pytest

from sml_dist.data.dataset import Manifest
from sml_dist.data.prepare import prepare
from tests.data.raw_logs import rows_of
from tests.faults.serial import check_dataset, without_ray

LETTERS = [f"C{i}" for i in range(1, 27)]
NUMBERS = [f"I{i}" for i in range(1, 14)]
AVAZU = (
    "C1 banner_pos site_id site_domain site_category app_id app_domain app_category device_id device_ip device_model device_type "
    "device_conn_type C14 C15 C16 C17 C18 C19 C20 C21"
).split()


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    without_ray(monkeypatch)


def prepared(folder: Path, schema: str, train: list[dict], test: list[dict]) -> tuple[Manifest, dict[str, list[dict]]]:
    """The manifest and the rows of files with these rows; a column that a row leaves out is empty, the rows to validate are `test`."""
    columns = dict.fromkeys(name for row in train + test for name in row)
    files = {}
    for name, rows in (("train", train), ("valid", test), ("test", test)):
        lines = [",".join(columns), *(",".join(str(row.get(column, "")) for column in columns) for row in rows)]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
        files[name] = str(folder / f"{name}.csv")
    manifest = prepare(schema, str(folder / "out"), **files)
    check_dataset(folder / "out", manifest)
    return manifest, {name: rows_of(folder / "out", manifest, name) for name in files}


def ids(rows: list[dict], manifest: Manifest, name: str) -> list[int]:
    place = [field.name for field in manifest.single].index(name)
    return [row["ids"][place] for row in rows]


def criteo(label: int, number: float | str, letter: str) -> dict:
    return {"Label": label, **dict.fromkeys(NUMBERS, number), **dict.fromkeys(LETTERS, letter)}


def test_criteo_x4_makes_each_number_a_field_by_its_squared_logarithm(tmp_path):
    numbers = [-1, 0, 1, 2, 3, 5, 6, 400, ""]
    train = [criteo(i % 2, number, "a") for number in numbers for i in range(10)]
    manifest, rows = prepared(tmp_path, "criteo_x4", train, [criteo(0, number, "a") for number in numbers])
    assert manifest.dense == []
    assert [field.name for field in manifest.single] == [f"{name}_log_square" for name in NUMBERS] + LETTERS
    squares = [math.floor(math.log(number) ** 2) for number in (3, 5, 6, 400)]
    assert squares == [1, 2, 3, 35]
    assert len(set(ids(rows["test"], manifest, "I13_log_square"))) == len(numbers)
    near = [criteo(0, number, "a") for number in (4, 401)]  # squares 1 and 35 again
    (tmp_path / "near").mkdir()
    manifest, rows = prepared(tmp_path / "near", "criteo_x4", train, near + [criteo(0, number, "a") for number in (3, 400)])
    found = ids(rows["test"], manifest, "I1_log_square")
    assert found[:2] == found[2:] and found[0] != found[1]


def test_criteo_x4_gives_a_row_to_what_the_training_rows_hold_ten_times(tmp_path):
    train = [criteo(i % 2, 100 if i < 10 else 1000, "ten" if i < 10 else "nine") for i in range(19)]
    test = [criteo(0, 100, "ten"), criteo(0, 1000, "nine"), criteo(0, 7, "new")] + [criteo(0, 7, "new")] * 20
    manifest, rows = prepared(tmp_path, "criteo_x4", train, test)
    for name in ("C1", "C26", "I1_log_square"):
        assert ids(rows["test"], manifest, name)[:3] == [1, 0, 0]


def test_criteo_x1_takes_numbers_as_they_are_and_a_row_for_every_value(tmp_path):
    train = [{"label": i % 2, **dict.fromkeys(NUMBERS, i / 8), **dict.fromkeys(LETTERS, i)} for i in range(4)]
    test = [{"label": 1, **dict.fromkeys(NUMBERS, 0.625), **dict.fromkeys(LETTERS, value)} for value in (0, 3, 9)]
    manifest, rows = prepared(tmp_path, "criteo_x1", train, test)
    assert manifest.dense == NUMBERS and [field.name for field in manifest.single] == LETTERS
    assert all(row["dense"] == [0.625] * 13 for row in rows["test"])
    assert [row["dense"][0] for row in rows["train"]] == [i / 8 for i in range(4)]
    assert sorted(ids(rows["train"], manifest, "C26")) == [1, 2, 3, 4] and ids(rows["test"], manifest, "C26")[2] == 0


def test_avazu_x1_takes_its_22_fields_and_a_row_for_every_value(tmp_path):
    names = [f"feat_{i}" for i in range(1, 23)]
    manifest, rows = prepared(
        tmp_path,
        "avazu_x1",
        [{"label": i % 2, **dict.fromkeys(names, i)} for i in range(4)],
        [{"label": 1, **dict.fromkeys(names, value)} for value in (0, 9)],
    )
    assert manifest.dense == [] and [field.name for field in manifest.single] == names
    assert sorted(ids(rows["train"], manifest, "feat_22")) == [1, 2, 3, 4] and ids(rows["test"], manifest, "feat_22")[1] == 0


def test_avazu_x4_takes_hour_weekday_and_weekend_of_the_time_and_leaves_the_id_out(tmp_path):
    def row(number: int, hour: str, value: str) -> dict:
        return {"id": f"{number}e18", "click": number % 2, "hour": hour, **dict.fromkeys(AVAZU, value)}

    train = [row(i, hour, value) for i, (hour, value) in enumerate([("14102100", "a"), ("14102223", "a"), ("14102800", "once")])]
    manifest, rows = prepared(tmp_path, "avazu_x4", train * 2 + train[:2], [row(0, "14102100", "a"), row(1, "14102800", "once")])
    assert manifest.dense == [] and [field.name for field in manifest.single] == [*AVAZU, "hour_hour", "hour_weekday", "hour_weekend"]
    first, week_later = rows["test"]
    assert ids([first], manifest, "hour_weekday") == ids([week_later], manifest, "hour_weekday")  # both Tuesdays, at midnight
    assert ids([first], manifest, "hour_hour") == ids([week_later], manifest, "hour_hour")
    assert len(set(ids(rows["train"], manifest, "hour_weekday"))) == 2
    assert len(set(ids(rows["train"], manifest, "hour_weekend"))) == 1  # Tuesdays and a Wednesday


def test_avazu_x4_gives_a_row_to_what_the_training_rows_hold_twice(tmp_path):
    def row(value: str) -> dict:
        return {"id": 1, "click": 0, "hour": "14102100", **dict.fromkeys(AVAZU, value)}

    manifest, rows = prepared(tmp_path, "avazu_x4", [row("twice"), row("twice"), row("once")], [row("twice"), row("once"), row("new")])
    assert ids(rows["test"], manifest, "device_ip") == [1, 0, 0]
