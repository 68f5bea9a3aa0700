"""Plans for clusters that are not there: what they count, and what they say where a run does not fit."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch.distributed as dist
from typer.testing import CliRunner

from sml_dist.cli import app
from sml_dist.config.run import RunConfig, load, parse
from sml_dist.data.dataset import Field, Manifest, Split, SplitWriter, arrow_schema, write_manifest
from sml_dist.data.synthetic import synth
from sml_dist.embeddings.capacity import Capacity, refusal, solve
from sml_dist.embeddings.capacity_advice import more_ranks
from sml_dist.embeddings.capacity_report import Report, imbalance, make_cluster, plan_run, report
from sml_dist.embeddings.capacity_sizes import parse_bytes
from sml_dist.embeddings.capacity_tables import dataset_tables, read_tables
from sml_dist.embeddings.capacity_text import ranges, report_text
from sml_dist.embeddings.cluster import Cluster
from sml_dist.nn.sml import SMLConfig
from sml_dist.spec import InputError
from tests.data.histories import LENGTH, prepared

PLANS = Path(__file__).parents[2] / "configs/plans"
CRITEO = [str(PLANS / "criteo1tb_dcnv2.yaml"), "--tables", str(PLANS / "criteo1tb.tables.yml")]
LINKS = {"intra_bw": "600GB", "inter_bw": "25GB", "hbm_bw": "2TB"}

ROWS = [200_000, 100_000, 50_000, 20_000, 500]
TABLES = "dense: 3\nfields:\n" + "".join(f"  - {{name: f{i}, rows: {rows}}}\n" for i, rows in enumerate(ROWS))


@pytest.fixture
def tables(tmp_path) -> str:
    path = tmp_path / "few.yml"
    path.write_text(TABLES)
    return str(path)


def few(copied: bool = False, **embedding) -> RunConfig:
    model, train = {"name": "dnn", "tower": {"hidden": [16]}}, {"global_batch_size": 256, "checkpoint_in_background": copied}
    config = {"run": {"name": "few"}, "data": {"path": "none"}, "model": model, "train": train}
    return parse(config | {"embedding": {"dim": 32} | embedding})


def cluster(hbm: str, ddr: str = "0", ranks: int = 4) -> Cluster:
    return make_cluster(world_size=ranks, local_world_size=2, device="cuda", hbm=hbm, ddr=ddr, **LINKS)


@pytest.fixture(scope="module")
def mlperf() -> Report:
    large = make_cluster(world_size=128, local_world_size=8, device="cuda", hbm="80GB", ddr="1TB", **LINKS)
    made = plan_run(CRITEO[0], None, large, CRITEO[2])
    assert not dist.is_initialized()
    return made


def test_the_plan_for_128_gpus_counts_what_a_hand_count_does(mlperf):
    fields = read_tables(CRITEO[2]).manifest.fields
    weights = sum(field.rows for field in fields) * 128 * 4
    assert sum(field.rows for field in fields) == 204_184_588 and mlperf.fits
    replicated = sum(field.rows for field in fields if field.rows <= 10_000) * 128 * 4 * 127
    for name in ("weights", "optimizer"):  # Adagrad has a number of state for each weight
        assert sum(getattr(table, name) for table in mlperf.plan.tables) == weights
        assert sum(getattr(rank.main, name) for rank in mlperf.plan.ranks) == pytest.approx(weights + replicated, rel=0.02)


def test_the_checked_in_plan_is_the_one_the_command_makes(mlperf):
    assert report_text(mlperf) == (PLANS / "criteo1tb_dcnv2.txt").read_text()


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "column_wise", "table_row_wise", "data_parallel"])
@pytest.mark.parametrize(("optimizer", "state"), [("sgd", 0), ("rowwise_adagrad", 1 / 32), ("adagrad", 1), ("adam", 2)])
def test_memory_is_rows_times_dim_and_the_optimizers_state(tables, sharding, optimizer, state):
    found = solve(few(optimizer=optimizer, sharding=sharding), read_tables(tables), cluster("80GB"))
    copies = 4 if sharding == "data_parallel" else 1
    shards = 2 if sharding == "column_wise" and optimizer == "rowwise_adagrad" else 1  # each column shard has its own
    weights = sum(ROWS) * 32 * 4 * copies
    assert sum(rank.main.weights for rank in found.ranks) == pytest.approx(weights, rel=0.02)
    assert sum(rank.main.optimizer for rank in found.ranks) == pytest.approx(weights * state * shards, rel=0.02)
    assert {table.kind for table in found.tables} == {sharding}
    if sharding == "table_wise":  # an id of 8 bytes and a row of 32 floats for each row of the global batch
        assert sum(rank.main.lookups for rank in found.ranks) == pytest.approx(len(ROWS) * 256 * (8 + 32 * 4), abs=100)


@pytest.mark.parametrize(("optimizer", "states"), [("sgd", 0), ("adagrad", 1), ("adam", 2)])
def test_dense_memory_is_weights_gradients_and_states_and_the_gradients_of_replicated_tables(tables, optimizer, states):
    run = few()
    run = replace(run, model=replace(run.model, sml=SMLConfig(enabled=False)), train=replace(run.train, optimizer=optimizer))
    numbers = (5 * 32 + 3) * 16 + 16 + 16 + 1  # a layer of 16, and the logit
    assert solve(run, read_tables(tables), cluster("80GB")).ranks[0].main.dense == 4 * ((2 + states) * numbers + 500 * 32)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "column_wise", "data_parallel"])
def test_a_plan_holds_a_copy_of_each_row_and_on_the_first_rank_of_the_dense_part_in_host_memory(tables, device, sharding):
    machine, run = replace(cluster("80GB", "80GB"), device=device), few(copied=True, sharding=sharding, optimizer="adagrad")
    run = replace(run, model=replace(run.model, sml=SMLConfig(enabled=False)))
    found = solve(run, read_tables(tables), machine)
    dense = 4 * 3 * ((5 * 32 + 3) * 16 + 16 + 16 + 1)  # weights and Adam's two states
    for place, rank in enumerate(found.ranks):
        first, near = place == 0, rank.main.weights + rank.main.optimizer
        copies = rank.host.copies if device == "cuda" else rank.main.copies
        assert copies == pytest.approx((near if first or sharding != "data_parallel" else 0) + first * dense)
        assert rank.host.total == (copies if device == "cuda" else 0)
    plain = solve(replace(run, train=replace(run.train, checkpoint_in_background=False)), read_tables(tables), machine)
    assert not any(rank.main.copies or rank.host.total for rank in plain.ranks)
    assert sum(rank.main.lookups for rank in found.ranks) == pytest.approx(sum(rank.main.lookups for rank in plain.ranks))


@pytest.mark.parametrize(("device", "hbm", "ddr"), [("cpu", "0", "40MB"), ("cuda", "80GB", "10MB")])
def test_where_copies_are_what_does_not_fit_the_advice_and_the_refusal_name_the_key(tables, device, hbm, ddr):
    machine = make_cluster(world_size=4, local_world_size=2, device=device, hbm=hbm, ddr=ddr, **LINKS)
    run, key = few(copied=True, sharding="row_wise"), "train.checkpoint_in_background=false"
    assert solve(run, read_tables(tables), machine) is None
    made = report(run, read_tables(tables), machine)
    assert not made.fits and made.changes[0].settings == [key] and made.changes[0].fits
    assert solve(few(copied=False, sharding="row_wise"), read_tables(tables), machine).fits
    assert f"1. {key}" in report_text(made) and f"set {key}" in refusal(run, read_tables(tables), machine)
    if device == "cuda":  # a plan for its own memory, but for more of the host's
        assert made.needs == machine.hbm and "12.3 MB of host memory" in report_text(made).splitlines()[-len(made.changes) - 1]


def test_what_does_not_fit_hbm_goes_to_host_memory_only_where_there_is_some(tables):
    run, needed = few(sharding="row_wise"), sum(ROWS) * 32 * 4
    hbm = f"{needed // 4 // 1000 + 500}kB"  # a fourth on each of four ranks, but for the reserve
    assert solve(run, read_tables(tables), cluster(hbm)) is None
    found = solve(run, read_tables(tables), cluster(hbm, "1GB"))
    far = [table for table in found.tables if table.kernel == "fused_uvm_caching"]
    assert far and found.fits
    assert sum(rank.host.weights for rank in found.ranks) == pytest.approx(sum(table.weights for table in far), rel=0.02)


def test_a_small_container_is_enough_for_small_tables(tmp_path):
    path = tmp_path / "small.yml"
    path.write_text("dense: 13\nfields:\n" + "".join(f"  - {{name: f{i}, rows: 20000}}\n" for i in range(26)))
    run = few()
    for memory, workers in (("2GB", 4), ("4GB", 1)):
        machine = make_cluster(world_size=workers, local_world_size=workers, device="cpu", hbm="0", ddr=memory)
        assert solve(replace(run, train=replace(run.train, global_batch_size=8192)), read_tables(str(path)), machine).fits


def test_every_change_that_is_said_to_fit_does(tables):
    """table_wise, so that the largest shard is too large; the other changes take row_wise with them."""
    run, small = few(sharding="table_wise", optimizer="adam"), cluster("30MB")
    made = report(run, read_tables(tables), small)
    assert not made.fits and made.plan.fullest > made.plan.room
    assert made.changes[0].settings[0] == "embedding.tables.f0.sharding=row_wise" and not made.changes[0].fits
    said = [change.settings[-1].split("=")[0].split()[0] for change in made.changes[1:]]
    assert said == ["embedding.dim", "embedding.optimizer", "--ddr", "--world-size"]
    for change in made.changes[1:]:
        assert change.fits, change.line
        assert replan(change.settings, small, read_tables(tables)).fits, change.line


def test_more_machines_come_with_a_batch_that_they_can_share(tables):
    run = few(sharding="row_wise", optimizer="adam")
    wider, divided, found = more_ranks(run, read_tables(tables), cluster("30MB"))
    assert found.fits and wider.world_size == 6 and divided.train.global_batch_size == 258  # 256 is no multiple of 6
    assert divided.data.streams == 6  # 16 do not divide 258
    larger = replace(run, train=replace(run.train, global_batch_size=240))
    assert more_ranks(larger, read_tables(tables), cluster("30MB"))[1] == larger
    few_streams = replace(larger, data=replace(larger.data, streams=5))
    assert more_ranks(few_streams, read_tables(tables), cluster("30MB"))[1].data.streams == 6
    settings = report(run, read_tables(tables), cluster("30MB")).changes[-1].settings
    assert settings == ["train.global_batch_size=258", "data.streams=6", "--world-size 6"]


def test_a_plan_refuses_workers_and_batches_that_training_would_refuse_for_their_streams(tables, tmp_path):
    config = tmp_path / "few.yaml"
    config.write_text("data: {path: none}\nmodel: {name: dnn}\ntrain: {global_batch_size: 256}\n")
    with pytest.raises(InputError, match="^data.streams 16 is fewer than 32 workers; set data.streams to 128$"):
        plan_run(str(config), None, cluster("80GB", ranks=32), tables)
    assert plan_run(str(config), ["data.streams=32"], cluster("80GB", "1TB", ranks=32), tables).fits
    with pytest.raises(InputError, match="^train.global_batch_size 256 is not divisible by data.streams 12; try 252 or 264$"):
        plan_run(str(config), ["data.streams=12"], cluster("80GB"), tables)


def replan(settings: list[str], on: Cluster, tables) -> Capacity:
    embedding: dict = {"sharding": "table_wise", "optimizer": "adam", "tables": {}}
    options, batch, streams = {"--ddr": "0", "--world-size": "4"}, 256, 16
    for setting in settings:
        if setting.startswith("--"):
            options |= dict([setting.split()])
        elif setting.startswith("train.global_batch_size="):
            batch = int(setting.split("=")[1])
        elif setting.startswith("data.streams="):
            streams = int(setting.split("=")[1])
        elif setting.startswith("embedding.tables."):
            embedding["tables"][setting.split(".")[2]] = {"sharding": setting.split("=")[1]}
        else:
            key, value = setting.removeprefix("embedding.").split("=")
            embedding[key] = int(value) if value.isdigit() else value
    run, ranks = few(**embedding), int(options["--world-size"])
    assert batch % ranks == batch % streams == 0 and ranks <= streams  # or the command refuses it
    return solve(replace(run, train=replace(run.train, global_batch_size=batch)), tables, cluster("30MB", options["--ddr"], ranks))


def test_row_wise_alone_is_the_first_advice_where_tables_are_only_badly_spread(tables):
    made = report(few(sharding="table_wise"), read_tables(tables), cluster("25MB"))
    assert not made.fits and made.changes[0].fits
    assert all("row_wise" in setting for setting in made.changes[0].settings)


def test_a_plan_that_does_not_fit_ends_with_status_1_and_says_what_to_change(tables, tmp_path):
    config = tmp_path / "few.yaml"
    sections = ("data: {path: none}", "model: {name: dnn}", "embedding: {dim: 32, sharding: table_wise}")
    config.write_text("\n".join((*sections, "train: {global_batch_size: 256, checkpoint_in_background: false}")))
    arguments = ["plan", str(config), "--tables", tables, "--world-size", "4", "--local-world-size", "2", "--hbm", "27MB", "--ddr", "0"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 1
    assert "DOES NOT FIT" in shown.stdout and "1. row_wise for f0" in shown.stdout
    made = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert made["fits"] is False and len(made["ranks"]) == 4 and made["changes"][0]["settings"]
    fitting = CliRunner().invoke(app, [*arguments, "--hbm", "80GB", "--json"])
    assert fitting.exit_code == 0 and json.loads(fitting.stdout)["changes"] == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--hbm", "80QB"], "--hbm 80QB: not a size; write it as 80GB, 1TB or 512MiB"),
        (["--hbm", "80"], "--hbm 80: say the unit, as in 80GB"),
        (["--ddr", "1.5"], "--ddr 1.5: say the unit, as in 1.5GB"),
        (["--inter-bw", "25"], "--inter-bw 25: say the unit, as in 25GB"),
        (["--world-size", "12"], "--world-size 12 is not a whole number of nodes of --local-world-size 8"),
        (["--world-size", "96"], "global_batch_size 65536 is not divisible by --world-size 96; try 65568"),
        (["--device", "tpu"], "--device tpu: give cuda or cpu"),
        (["--inter-bw", "0"], "--inter-bw must be more than 0"),
        (["--tables", "nowhere.yml"], "--tables nowhere.yml: no such file"),
        (["--set", "embedding.dimm=3"], "did you mean embedding.dim?"),
        (["--set", "embedding.tables.cat_99.sharding=row_wise"], "embedding.tables.cat_99: the dataset has no such field"),
    ],
)
def test_a_wrong_option_gets_one_line(arguments, line):
    found = CliRunner().invoke(app, ["plan", *CRITEO, "--world-size", "128", *arguments])
    assert isinstance(found.exception, InputError) and line in str(found.exception) and "\n" not in str(found.exception)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("fields: [{name: a, rows: 0}]", "fields.0.rows: input should be greater than 0"),
        ("fields: [{name: a, row: 5}]", "fields.0.row"),
        ("fields: [{name: a, rows: 5, ids_per_row: 3}]", "a has 3 ids a row; set multivalued: true"),
        ("fields: [{name: a, rows: 5}, {name: a, rows: 6}]", "two fields are named a"),
        ("fields: []", "fields: list should have at least 1 item"),
        ("user_id: 500000000", "fields: field required; write fields: [{name: user_id, rows: 500000000}]"),
        ("- 3", "--tables"),
        ("a: [", "--tables"),
    ],
)
def test_a_wrong_tables_file_is_one_line_that_names_it(tmp_path, text, line):
    path = tmp_path / "wrong.yml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_tables(str(path))
    assert str(path) in str(error.value) and line in str(error.value) and "\n" not in str(error.value)


def test_a_prepared_dataset_is_planned_without_a_tables_file(tmp_path):
    manifest = synth(200, str(tmp_path / "data"), fields=4, dense=2)
    config = tmp_path / "mine.yaml"
    config.write_text(f"data: {{path: {tmp_path / 'data'}}}\nmodel: {{name: dcn_v2}}\ntrain: {{global_batch_size: 64}}\n")
    small = make_cluster(world_size=4, local_world_size=2, device="cpu", hbm="0", ddr="8GB", **LINKS)
    made = plan_run(str(config), None, small)
    assert made.fits and {table.table: table.rows for table in made.plan.tables} == {field.name: field.rows for field in manifest.fields}
    assert all(rank.host.total == 0 for rank in made.plan.ranks)


def test_ids_a_row_of_a_dataset_are_the_mean_of_its_lists(tmp_path):
    fields, flags = [Field(name="tags", rows=10, multivalued=True)], {"weight": False, "group": False, "timestamp": False}
    schema = arrow_schema(fields, [], **flags)
    with SplitWriter(str(tmp_path), "train/part-0.parquet", schema) as writer:
        writer.write(pa.table({"ids:tags": [[1, 2], [], [3, 4, 5, 6]], "label": [0.0, 1.0, 0.0]}, schema=schema))
    split = Split(rows=3, positives=1, files=[writer.file])
    counts = {"rows_read": 3, "rows_kept": 3, "rows_rejected": 0, "split_rule": ""}
    write_manifest(str(tmp_path), Manifest(name="lists", fields=fields, dense=[], splits={"train": split}, **counts))
    assert dataset_tables(str(tmp_path)).ids_per_row == {"tags": 2.0}


def test_a_sequence_costs_lookups_and_no_table(tmp_path):
    manifest = prepared(tmp_path, films=80, labels="label: {column: rating, at_least: 4}")
    tables = dataset_tables(str(tmp_path / "data"))
    held = [tables.ids_per_row[f"seen:{place}"] for place in range(1, LENGTH + 1)]
    assert held == sorted(held, reverse=True) and held[0] == pytest.approx(0.8, abs=0.05) and 0.3 < held[-1] < 0.7
    model = {"name": "din", "attention": {"hidden": [8]}, "tower": {"hidden": [16]}}
    config = parse({"run": {"name": "t"}, "data": {"path": "none"}, "model": model, "embedding": {"sharding": "table_wise"}})
    made = solve(config, tables, cluster("1GB"))
    assert {table.table: table.rows for table in made.tables} == {field.name: field.rows for field in manifest.tables}
    assert made.ranks[0].main.ids == 20 * 8 * 4096 / 4 * sum(tables.ids_per_row.values())


def test_sequences_of_a_tables_file_share_the_table_of_their_field(tmp_path):
    (tmp_path / "t.yml").write_text("fields: [{name: item, rows: 1000, sequences: [3, 2]}, {name: user, rows: 10}]")
    tables = read_tables(str(tmp_path / "t.yml"))
    assert [field.name for field in tables.manifest.tables] == ["item", "user"]
    places = [f"item_sequence_{number}:{place}" for number, length in ((1, 3), (2, 2)) for place in range(1, length + 1)]
    assert tables.manifest.features == ["item", "user", *places]
    assert set(tables.ids_per_row) >= set(tables.manifest.features)


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GB", 80e9), ("1TB", 1e12), ("512MiB", 2**29), ("1.5 GiB", 1.5 * 2**30), ("0", 0), ("7B", 7), ("80000000000", 80e9), ("2k", 2e3)]
    + [(".5GB", 5e8), (" 1Ti ", 2**40), ("512Mi", 2**29)],
)
def test_sizes_are_read_as_written(text, size):
    assert parse_bytes(text, "--hbm") == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1,5GB", "80,5", "1.5.GB", "1.GB", "600GB/s", "1_000GB", "3 apples", "1i"])
def test_what_is_no_size_from_end_to_end_is_refused(text):
    with pytest.raises(InputError, match=f"^--hbm {text}: not a size; write it as 80GB, 1TB or 512MiB$"):
        parse_bytes(text, "--hbm")


def test_imbalance_is_largest_over_mean_and_ranks_are_listed_as_ranges():
    assert imbalance([1.0, 2.0, 3.0]) == 1.5
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


def test_both_shipped_plans_load_with_their_tables():
    for name, tables, size in (("criteo1tb_dcnv2", "criteo1tb", 104.5e9), ("ten_terabytes", "ten_terabytes", 10e12)):
        dim = load(str(PLANS / f"{name}.yaml")).embedding.dim
        rows = sum(field.rows for field in read_tables(str(PLANS / f"{tables}.tables.yml")).manifest.fields)
        assert rows * dim * 4 == pytest.approx(size, rel=0.01)
