"""Configuration: typed, frozen, and helpful about every wrong key."""

import dataclasses
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner

from sml_dist.cli import app
from sml_dist.config.file import read_yaml
from sml_dist.config.run import RunConfig, dump, load, parse, read
from sml_dist.config.settings import load_settings
from sml_dist.config.tune import SweepConfig
from sml_dist.models.zoo import ZOO
from sml_dist.spec import InputError, to_dict
from sml_dist.studies.depth import DepthConfig
from sml_dist.studies.grid import GridConfig
from sml_dist.studies.landscape import LandscapeConfig
from sml_dist.studies.online_config import OnlineConfig

OTHERS = {"schemas", "studies", "sweeps"}  # which are no configurations of a run
CONFIGS = sorted(path for path in Path(__file__).parents[2].glob("configs/**/*.yaml") if not OTHERS & {*path.parts})


@pytest.fixture
def file(tmp_path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {path: somewhere}\nmodel: {name: dcn_v2}\n")
    return str(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_loads(path):
    load(str(path))


@pytest.mark.parametrize("name", ZOO)
def test_a_config_survives_yaml(file, name):
    config = load(file, [f"model.name={name}", "embedding.dim=12", "train.max_steps=7"])
    assert parse(OmegaConf.to_container(OmegaConf.create(dump(config)))) == config


@pytest.mark.parametrize(
    "path", ["1e5", "null", "on", "0x10", "${oc.env:HOME}", "a: b # c", "\\n", "r\u00e9sum\u00e9 \U0001f600", " x ", "???"]
)
def test_a_kept_config_is_read_as_it_was_whatever_a_text_looks_like(file, tmp_path, path):
    config = parse(read(file) | {"data": {"path": path}, "train": {"worker_resources": {"CPU": 1e-5, "1e3": 1e300}}})
    (tmp_path / "config.yaml").write_text(dump(config))
    assert parse(read_yaml(str(tmp_path / "config.yaml"), resolve=False)) == config


def numbers(section: dict) -> Iterator[tuple[dict, str]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from numbers(value)
        elif isinstance(value, int | float | None) and not isinstance(value, bool):
            yield section, key


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_config_holds_a_number_that_json_cannot(file, name, value):
    raw = to_dict(load(file, [f"model.name={name}", "train.worker_resources.CPU=1"]))
    for section, key in numbers(raw):
        before, section[key] = section[key], value
        with pytest.raises(InputError):
            parse(raw)
        section[key] = before
    assert parse(raw).train.worker_resources == {"CPU": 1.0}


@pytest.mark.parametrize("section", ["run", "train", "data"])
@pytest.mark.parametrize("held", [None, "text", [1.0], {"name": 3, "step_timeout_s": "long", "clip_norm": {}, "warm_start": 3, "path": 3}])
def test_a_kept_section_that_is_none_is_refused_in_one_line_that_names_its_file(file, section, held):
    with pytest.raises(InputError, match=f"^config.yaml: {section}[^\n]*; go on with the version that wrote it, or name another run$"):
        parse(to_dict(load(file)) | {section: held}, "config.yaml")


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"run": {}}, "run.name is missing"),
        ({"train": {"epoch": 3, "lr": "high"}}, "train.lr: input should be a valid number, [^;]*; train.epoch is not a key"),
        ({"model": {"name": "dnm"}}, "model.name 'dnm' is not in the zoo"),
    ],
)
def test_the_faults_of_a_kept_file_come_without_advice_for_editing_it(file, changes, faults):
    with pytest.raises(InputError, match=f"^config.yaml: {faults}; go on with the version that wrote it, or name another run$"):
        parse(to_dict(load(file)) | changes, "config.yaml")


def test_overrides_win_and_the_run_is_named_after_the_file(file):
    config = load(file, ["train.epochs=3", "model.sml.mtn.slope=0.2", "data.shuffle=false"])
    assert (config.run.name, config.train.epochs, config.model.sml.mtn.slope, config.data.shuffle) == ("mine", 3, 0.2, False)


@pytest.mark.parametrize("override", ["model.tower.hidden.0=5", "model.tower=[1]", "embedding=[1,2]"])
def test_a_list_in_a_sections_place_or_the_reverse_is_one_line(tmp_path, override):
    (tmp_path / "mine.yaml").write_text("model: {name: dnn, tower: {hidden: [400, 400]}}\nembedding: {dim: 4}\ndata: {path: d}\n")
    with pytest.raises(
        InputError, match=rf"^--set {re.escape(override)}: a list stands where a section should, or the reverse; give all of"
    ):
        load(str(tmp_path / "mine.yaml"), [override])


def test_a_config_is_frozen(file):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(file).train.epochs = 2


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.epoch=3", "train.epoch is not a key; did you mean train.epochs?"),
        ("model.sml.mnt.slope=3", "model.sml.mnt is not a key; did you mean model.sml.mtn?"),
        ("embeding.dim=4", "embeding is not a key; did you mean embedding?"),
        ("embedding.learning_rate=1", "embedding.learning_rate is not a key; embedding has dim, optimizer, lr,"),
        ("model.name=dnm", "model.name 'dnm' is not in the zoo; it has lr, fm, dnn, "),
        ("model=dcn_v2", "model: 'dcn_v2' is no section; say model.name=dcn_v2"),
        (
            "model.sml.mtn=none",
            "model.sml.mtn: 'none' is no section; say model.sml.mtn.placement=... (it has placement, before_",
        ),
        ("train=null", "train: null is no section; say train.num_workers=... (it has num_workers, "),
        ("[=3", "--set [=3: "),
        ("train.epochs=many", "train.epochs: input should be a valid integer"),
        ("train.epochs=0", "train.epochs: input should be greater than 0 (got 0)"),
        ("train.schedule=cos", "train.schedule: input should be 'constant', 'cosine' or 'plateau' (got 'cos')"),
        ("model.tower.hidden=400", "model.tower.hidden: give a list, as in [400]"),
        ("train.step_timeout_s=.inf", "train.step_timeout_s: input should be less than or equal to 31536000 (got inf)"),
        ("train.step_timeout_s=1e300", "train.step_timeout_s: input should be less than or equal to 31536000 (got 1e+300)"),
        ("train.lr=.nan", "train.lr: input should be a finite number (got nan)"),
        ("embedding.l2=inf", "embedding.l2: input should be a finite number (got 'inf')"),
        ("train.worker_resources={CPU: .inf}", "train.worker_resources.CPU: input should be a finite number (got inf)"),
        ("data.path=null", "data.path: input should be a valid string (got None)"),
        ("run.storage=''", "run.storage: names no folder; give one, or . for the present one"),
        (
            "run.storage=s3://bucket/runs",
            "run.storage: s3://bucket/runs is a URL; name a path in a file system that all nodes mount, for files",
        ),
        ("run.name=''", "run.name: '' is no name of a folder; give one without / and \\ that does not begin with a dot"),
        ("run.name=../../x", "run.name: '../../x' is no name of a folder"),
        ("run.name=a/b", "run.name: 'a/b' is no name of a folder"),
        ("run.name=a\\b", r"run.name: 'a\\b' is no name of a folder"),
        ("run.name=.", "run.name: '.' is no name of a folder"),
        ("run.name=.hidden", "run.name: '.hidden' is no name of a folder"),
        ("run.warm_start=s3://bucket/run", "run.warm_start: s3://bucket/run is a URL; name a path in a file system that all"),
        ("epochs", "--set epochs: expected key=value"),
        (
            "model.tower.hidden=[400,400",
            "--set model.tower.hidden=[400,400: did not find expected ',' or ']'; give a value as YAML writes it",
        ),
        ("run.name=${name", "--set run.name=${name: no viable alternative at input"),
    ],
)
def test_a_wrong_key_gets_one_line_that_names_it(file, override, line):
    with pytest.raises(InputError) as error:
        load(file, [override])
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("held", [None, b"- a\n- b\n", b"a: [1\n", b"\xff\xfe\x00bad"], ids=str)
@pytest.mark.parametrize("cls", [RunConfig, GridConfig])
def test_what_is_no_configuration_gets_one_line_that_names_the_file(tmp_path, held, cls):
    """None: a folder."""
    path = tmp_path / "c.yaml"
    path.mkdir() if held is None else path.write_bytes(held)
    with pytest.raises(InputError) as error:
        load(str(path)) if cls is RunConfig else load_settings(cls, str(path))
    assert "c.yaml" in str(error.value) and "\n" not in str(error.value)


def refused(cls: type, path: Path, override: str = "a=1") -> str:
    with pytest.raises(InputError) as error:
        load(str(path), [override]) if cls is RunConfig else load_settings(cls, str(path), [override])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("log", ["10.0.0.1 a user's row\n" * 10_000, "0,0.5,a\n1,0.25,b\n" * 10_000, "0\t5\ta\n1\t25\tb\n" * 10_000])
@pytest.mark.parametrize("cls", [RunConfig, GridConfig])
def test_a_log_in_place_of_a_configuration_is_called_none(tmp_path, cls, log):
    path = tmp_path / "day_0.csv"
    path.write_text(log)
    assert refused(cls, path) == f"{path} holds no configuration; see configs/smoke.yaml for one"


LONG = "a user's row " * 10_000


@pytest.mark.parametrize(
    ("text", "override"),
    [
        (f"name: x\n? {LONG}\n: 3", "a=1"),
        (f"name: x\n? {LONG}\n: {{}}\n? {LONG}\n: {{}}", "a=1"),
        ("name: x", LONG),
        ("name: x", "data={path: x, shuffle: " + LONG + "}"),
        (f"{{name: x, model: {LONG}}}", "a=1"),
        (f"{{name: x, model: {{name: {LONG}}}}}", "a=1"),
        (f"{{name: x, train: {{monitor: {LONG}}}}}", "a=1"),
        (f"{{name: x, metric: {LONG}, compare: [a, b], base: b, axes: {{a: {LONG}}}, seeds: [1, 1]}}", "a=1"),
    ],
)
@pytest.mark.parametrize("cls", [RunConfig, GridConfig])
def test_no_error_line_quotes_more_than_a_short_part_of_what_was_given(tmp_path, cls, text, override):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    said = refused(cls, path, override)
    assert LONG[:121] not in said and len(said) < 1000


SHIPPED = Path(__file__).parents[2] / "configs"
SETTINGS = {
    SweepConfig: SHIPPED / "sweeps/sml.yaml", GridConfig: SHIPPED / "studies/ablation.yaml", DepthConfig: SHIPPED / "studies/depth.yaml",
    OnlineConfig: SHIPPED / "studies/online.yaml", LandscapeConfig: SHIPPED / "studies/landscape.yaml",
}  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "override", "line"),
    [
        (SweepConfig, "trails=3", "trails is not a key; did you mean trials?"),
        (SweepConfig, "search.sed=3", "search.sed is not a key; did you mean search.seed?"),
        (
            SweepConfig,
            "space.train.lr.choice=[0.001]",
            "space.train.lr: --set takes the dots of a space's key for sections; change it in the file",
        ),
        (SweepConfig, "space.lr=0.1", "space.lr: --set takes the dots of a space's key for sections; change it in the file"),
        (SweepConfig, "retries=-1", "retries: input should be greater than or equal to 0 (got -1)"),
        (SweepConfig, "train.epochs=1", """put it into this file's `set`, or give --set 'set=["train.epochs=1"]' in its place"""),
        (SweepConfig, "model.name=dnn", """model is a key of the base: put it into this file's `set`, or give --set 'set=["model.name"""),
        (SweepConfig, "search=grid", "search: 'grid' is no section; say search.name=grid (it has name, seed, startup)"),
        (SweepConfig, "name=''", "name: '' is no name of a folder"),
        (SweepConfig, "name=..", "name: '..' is no name of a folder"),
        (GridConfig, "axes.sml={a/b: []}", "axes.sml.a/b: 'a/b' is no name of a folder"),
        (SweepConfig, "set=train.epochs=1", "set: give a list, as in [train.epochs=1]"),
        (GridConfig, "train.epochs=1", "train is a key of the base: put it into this file's `set`"),
        (DepthConfig, "variants.plain.smll=3", "variants.plain.smll is not a key; did you mean variants.plain.sml?"),
        (OnlineConfig, "model.towr=3", "model.towr is not a key; did you mean model.tower?"),
        (LandscapeConfig, "train.epochs=1", "train is not a key; the configuration has towers, points, descent, seed"),
        (LandscapeConfig, "towers.models.x.name=dnm", "towers.models.x.name 'dnm' is not in the zoo; it has lr, fm"),
    ],
)
def test_a_wrong_key_of_a_sweep_or_a_study_gets_one_line_that_names_the_nearest_right_one(cls, override, line):
    said = refused(cls, SETTINGS[cls], override)
    assert said.startswith(f"{SETTINGS[cls]}: ") and line in said


def test_what_is_set_of_a_base_comes_after_what_the_file_sets(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("{name: s, base: b.yaml, space: {}, set: [train.epochs=3, data.path=d]}")
    found = load_settings(SweepConfig, str(path), ["set=[train.epochs=2]", "trials=8", "set=[train.seed=1]"])
    assert found.set == ["train.epochs=3", "data.path=d", "train.epochs=2", "train.seed=1"] and found.trials == 8
    assert load_settings(SweepConfig, str(path), ["set=[]", "set=[train.seed=1]"]).set == ["train.seed=1"]


@pytest.mark.parametrize(
    ("command", "configs"), [("sweep", [SweepConfig, SweepConfig]), ("study", [DepthConfig, LandscapeConfig, GridConfig])]
)
def test_the_examples_of_a_commands_help_are_overrides_that_it_takes(command, configs):
    help = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "400"}).stdout
    examples = [shlex.split(found)[0].rstrip(";.") for found in re.findall("--set ('[^']*'|[a-z][^ ]*)", help)]
    for example, cls in zip(examples, configs, strict=True):
        assert load_settings(cls, str(SETTINGS[cls]), [example]) != load_settings(cls, str(SETTINGS[cls]))


@pytest.mark.parametrize(("cls", "place"), [(RunConfig, "model"), (OnlineConfig, "model"), (LandscapeConfig, "towers.models.3 on")])
def test_a_key_of_another_model_is_said_to_be_one_and_has_to_leave_the_file(tmp_path, cls, place):
    path = tmp_path / "c.yaml"
    given = OmegaConf.load(SETTINGS.get(cls, SHIPPED / "dcn_v2.yaml"))
    OmegaConf.update(given, place, {"name": "dcn_v2", "experts": 3})
    OmegaConf.save(given, path)
    line = f"{place}.experts is a key of dcn_v2, mmoe, not of dnn; take it out of the file's {place} section"
    assert line in refused(cls, path, f"{place}.name=dnn")


@pytest.mark.parametrize(("given", "fault"), [("0", "input should be greater than 0 (got 0)"), ("many", "input should be a valid integer")])
def test_what_fits_no_branch_of_a_union_is_one_fault_of_one_key(file, given, fault):
    with pytest.raises(InputError) as error:
        load(file, [f"train.num_workers={given}"])
    assert str(error.value).startswith(f"train.num_workers: {fault}") and "tuple" not in str(error.value)


def test_a_missing_section_and_a_missing_file_are_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model: {name: dnn}\n")
    with pytest.raises(InputError, match="data is missing; add it to the file"):
        load(str(path))
    with pytest.raises(InputError, match="no such file"):
        load(str(tmp_path / "other.yaml"))
    path.write_text("a: [1\n")
    with pytest.raises(InputError, match=r"c\.yaml: "):
        load(str(path))


def test_the_keys_that_other_work_relies_on_exist(file):
    config = to_dict(load(file))
    for key in (
        "run.name run.storage data.path data.streams data.shuffle model.name model.sml.enabled model.sml.skip model.sml.mtn "
        "embedding.dim embedding.optimizer embedding.lr embedding.l2 embedding.sharding train.num_workers train.global_batch_size "
        "train.epochs train.max_steps train.seed train.precision train.lr"
    ).split():
        section, *path = key.split(".")
        value = config[section]
        for part in path:
            assert part in value, key
            value = value[part]
