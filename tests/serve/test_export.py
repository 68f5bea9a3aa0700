"""An export scores raw rows as the training forward does, by every way out of it, and is whole or not there."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import fbgemm_gpu  # noqa: F401
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from sml_dist.config.run import load as load_config
from sml_dist.data.prepare import prepare
from sml_dist.data.synthetic import synth
from sml_dist.models.zoo import ZOO
from sml_dist.scoring.trained import find, load
from sml_dist.serve import export as module
from sml_dist.serve.export import export
from sml_dist.serve.graph import INPUTS, trace, write_pt2
from sml_dist.serve.layout import MANIFEST, verify
from sml_dist.serve.light import Model, take
from sml_dist.serve.model import ServedModel
from sml_dist.serve.requests import Ask
from sml_dist.serve.tables import quantized
from sml_dist.spec import InputError, to_dict
from sml_dist.train.alone import train_alone
from tests.data.histories import choosy
from tests.faults.serial import without_ray
from tests.models.test_zoo import NO_DENSE, SHAPE, STRUCTURES, labels, make
from tests.models.test_zoo import config as model_config
from tests.scoring.runs import config, rows_of, train
from tests.serve.conftest import MODEL

CONFIGS = Path(__file__).parents[2] / "configs"
# torch, pyarrow, and what torch itself asks for; no NumPy.
PACKAGES = "torch functorch torchgen pyarrow filelock typing_extensions sympy mpmath networkx jinja2 markupsafe fsspec".split()
ALONE = """
import sys
sys.path[1:] = [path for path in sys.path if "site-packages" not in path] + [sys.argv[3], "."]
import warnings; warnings.simplefilter("ignore")
import json, pyarrow as pa, pyarrow.csv
from loader import Model
names = open(sys.argv[1]).readline().strip().split(",")
types = {name: pa.string() for name in names}
rows = pa.csv.read_csv(sys.argv[1], convert_options=pa.csv.ConvertOptions(column_types=types))
model, rows = Model("."), rows.slice(len(rows) - int(sys.argv[2]))
print(json.dumps([model.score(rows).tolist(), [model.score(rows.slice(i, 1)).tolist()[0] for i in range(30)]]))
"""


def test_the_loader_scores_a_log_s_text_as_training_does_with_torch_and_pyarrow_alone(trained, exported, tmp_path):
    site = Path(pa.__file__).parents[1]
    for path in site.iterdir():
        if path.name.partition(".")[0] in PACKAGES:
            (tmp_path / path.name).symlink_to(path)
    log = Path(trained.data).parent / "logs.csv"
    command = [sys.executable, "-I", "-S", "-c", ALONE, str(log), str(len(trained.logit)), str(tmp_path)]
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    together, alone = (np.array(scores) for scores in json.loads(done.stdout))
    assert np.abs(together - trained.probability).max() < 1e-6
    assert np.abs(alone - trained.probability[:30]).max() < 1e-6
    assert len((exported / "loader.py").read_text().splitlines()) < 150


def test_the_encoder_s_way_and_onnx_score_as_training_does(trained, exported):
    served = ServedModel(exported)
    [answer] = served.score([Ask(trained.raw.select(served.features.inputs), True, 1)])
    assert np.abs(answer.probability - trained.probability).max() < 1e-6
    assert np.abs(answer.contributions.sum(1) - trained.logit).max() < 1e-5
    session = onnxruntime.InferenceSession(exported / "dense.onnx", providers=["CPUExecutionProvider"])
    ids, dense = served.model.features(trained.raw)
    inputs = []
    hook = served.model.graph.register_forward_pre_hook(lambda _, args: inputs.append(args))
    served.model.logits(ids, dense)
    hook.remove()
    for rows in (slice(0, 1), slice(None)):
        logit, _ = session.run(None, {name: part[rows].numpy() for name, part in zip(INPUTS, inputs[0], strict=True)})
        assert np.abs(probabilities(logit) - trained.probability[rows]).max() < 1e-6


def test_columns_of_parquet_score_as_their_text(trained, exported):
    model = Model(exported)
    typed = trained.raw
    for name, kind in {"price": pa.int64(), "age": pa.float64(), "user": pa.int32(), "time": pa.timestamp("s")}.items():
        column = typed[name].combine_chunks()
        column = pa.compute.if_else(pa.compute.equal(column, ""), None, column)
        column = column.cast(pa.int64()).cast(kind) if name == "time" else column.cast(kind)
        typed = typed.set_column(typed.column_names.index(name), name, column)
    assert torch.equal(model.score(typed), model.score(trained.raw))
    with pytest.raises(ValueError):
        model.score(trained.raw.set_column(1, "price", pa.array(["12x"] * len(trained.raw))))


QUICK = ("lr", "dcn_v2", "xdeepfm", "autoint", "dlrm", "din", "mmoe")


def graphs():
    for name in ZOO:
        for title, structure in {"default": {}, **STRUCTURES.get(name, {})}.items():
            marks = [] if name in QUICK and not structure else [pytest.mark.long]
            yield pytest.param(model_config(name, **structure), id=f"{name}-{title}", marks=marks)


def test_a_program_has_each_layer_s_term_once():
    model = make(model_config("dcn_v2", sml="mtn-skip"), SHAPE).eval()
    program, names = trace(model, SHAPE, ["label"])
    assert sum(node.target is torch.ops.aten.tanh.default for node in program.graph.nodes) == len(names) - 1


@pytest.mark.parametrize("made", graphs())
def test_every_model_s_program_computes_what_the_model_does_for_any_number_of_rows(made, tmp_path):
    shape = NO_DENSE if made.name == "dlrm" else SHAPE  # without a bottom network it is another graph
    model = make(made, shape).eval().requires_grad_(False)
    program, names = trace(model, shape, [f"label-{i}" for i in range(labels(made))])
    idle = [node for node in program.graph.nodes if "assert" in str(node.target) or node.op == "call_function" and not node.users]
    assert not idle
    write_pt2(program, tmp_path / "dense.pt2")
    graph = torch.export.load(tmp_path / "dense.pt2").module()
    for rows in (1, 2, 77, 0):
        inputs = torch.randn(rows, shape.fields, shape.dim), torch.randn(rows, shape.dense)
        logit, shares = graph(*inputs)
        torch.testing.assert_close(logit, model(*inputs), atol=1e-6, rtol=1e-6)
        assert shares.shape == (rows, len(names))


@pytest.fixture(scope="module")
def choosy_data(tmp_path_factory) -> dict[str, str]:
    return choosy(tmp_path_factory.mktemp("films"))


def choosy_raw(data: str, rows: int) -> pa.Table:
    log = pq.read_table(Path(data).parent / "log.parquet")
    return log.slice(len(log) - rows)


def probabilities(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit.astype(np.float64)))


@pytest.mark.parametrize("name", ["din", "mmoe"])
def test_sequences_and_several_labels_score_as_in_training(name, choosy_data, tmp_path):
    run = config(choosy_data[name], tmp_path, model=to_dict(model_config(name)))
    expected = probabilities(train(run)["valid"])
    raw = choosy_raw(choosy_data[name], len(expected))
    export(run.run.folder, str(tmp_path / "export"), onnx=False)
    model, served = Model(tmp_path / "export"), ServedModel(tmp_path / "export")
    assert np.abs(model.score(raw).numpy() - expected).max() < 1e-6
    found = served.score([Ask(raw.select(served.features.inputs).slice(at, 7), False, 7) for at in (0, 7)])
    assert np.abs(np.concatenate([answer.probability for answer in found]) - expected[:14]).max() < 1e-6
    assert np.shape(found[0].as_dict()["scores"]) == expected[:7].shape and found[0].as_arrow()


def test_an_export_of_a_run_in_bf16_computes_in_float32_and_its_card_says_so(trained, exported, tmp_path):
    run = config(trained.data, tmp_path, model=MODEL, train={"precision": "bf16"})
    train(run)
    export(run.run.folder, str(tmp_path / "export"), onnx=False)
    said = "The run computed matrix products in bf16; this export computes in float32."
    assert said in (tmp_path / "export/README.md").read_text() and "float32" not in (exported / "README.md").read_text()
    exact = load(find(run.run.folder), precision="fp32")
    expected = exact.score(exact.collate(rows_of(trained.data, "valid"))).probability
    assert (Model(tmp_path / "export").score(trained.raw) - expected).abs().max() < 1e-6


def test_what_is_predicted_is_called_as_the_schema_calls_it(exported):
    assert "Predicts the probability of click for a row of a log" in (exported / "README.md").read_text()
    assert ServedModel(exported).about["labels"] == ["click"]


@pytest.mark.long
@pytest.mark.parametrize("name", ZOO)
def test_every_model_trained_and_exported_scores_alike_by_all_ways(name, trained, choosy_data, tmp_path):
    data = choosy_data.get(name, trained.data)
    run = config(data, tmp_path, model=to_dict(model_config(name)))
    expected = probabilities(train(run)["valid"])
    raw = choosy_raw(data, len(expected)) if name in choosy_data else trained.raw
    export(run.run.folder, str(tmp_path / "export"))
    model = Model(tmp_path / "export")
    inputs = []
    model.graph.register_forward_pre_hook(lambda _, args: inputs.append(args))
    assert np.abs(model.score(raw).numpy() - expected).max() < 1e-6
    served = ServedModel(tmp_path / "export")
    asks = [Ask(raw.select(served.features.inputs).slice(i, 1), False, 1) for i in range(20)]
    assert np.abs([answer.probability[0] for answer in served.score(asks)] - expected[:20]).max() < 1e-6
    session = onnxruntime.InferenceSession(tmp_path / "export/dense.onnx", providers=["CPUExecutionProvider"])
    for rows in (slice(0, 1), slice(None)):
        logit, _ = session.run(None, {name: part[rows].numpy() for name, part in zip(INPUTS, inputs[0], strict=True)})
        assert np.abs(probabilities(logit) - expected[rows]).max() < 1e-6


@pytest.mark.parametrize("dim", [1, 7, 16])
def test_quantised_rows_lie_within_half_a_step_and_int8_is_fbgemm_s(dim):
    weight = torch.randn(50, dim) * torch.logspace(-3, 1, 50)[:, None]
    weight[7] = 0.25  # a row whose numbers are all one
    for quantize, levels in (("int8", 255), ("int4", 15)):
        rows = quantized(weight, quantize)
        found = take([(0, rows)], torch.arange(50))[:, :dim]
        step = (weight.amax(1) - weight.amin(1)) / levels
        assert ((found - weight).abs().amax(1) <= step / 2 * 1.001 + 1e-7).all()
    fused = torch.ops.fbgemm.FloatToFused8BitRowwiseQuantized(weight)
    theirs = torch.ops.fbgemm.Fused8BitRowwiseQuantizedToFloat(fused)
    ours = take([(0, quantized(weight, "int8"))], torch.arange(50))
    assert ((ours - theirs).abs().amax(1) <= (weight.amax(1) - weight.amin(1)) / 255 * 1.001 + 1e-6).all()


@pytest.mark.long
def test_int8_costs_frappe_less_than_half_a_thousandth_of_auc(real_data, tmp_path, monkeypatch):
    without_ray(monkeypatch)
    logs = {split: str(real_data / f"frappe/{split}.csv.gz") for split in ("train", "valid")}
    prepare("frappe", str(tmp_path / "data"), **logs)
    overrides = [f"data.path={tmp_path / 'data'}", f"run.storage={tmp_path}", "train.epochs=3", "embedding.init_std=0.01"]
    run = load_config(str(CONFIGS / "frappe/dcn_v2.yaml"), [*overrides, "model.sml.enabled=true"])
    train_alone(run)
    raw = pa.csv.read_csv(logs["valid"])
    aucs = {}
    for quantize in ("none", "int8"):
        export(run.run.folder, str(tmp_path / quantize), quantize=quantize, onnx=False)
        aucs[quantize] = roc_auc_score(raw["label"].to_numpy(), Model(tmp_path / quantize).score(raw).numpy())
    assert aucs["none"] > 0.93 and aucs["none"] - aucs["int8"] < 0.0005, aucs


def test_a_run_on_synthetic_rows_is_exported_with_row_numbers_as_values(tmp_path):
    synth(2_000, str(tmp_path / "data"), fields=3, dense=2, table_rows=60)
    run = config(str(tmp_path / "data"), tmp_path)
    expected = torch.sigmoid(torch.from_numpy(train(run)["valid"]))
    export(run.run.folder, str(tmp_path / "export"), onnx=False, quantize="none")
    rows, model = rows_of(str(tmp_path / "data"), "valid"), Model(tmp_path / "export")
    ids = rows["ids"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
    dense = rows["dense"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
    raw = {n["name"]: dense[:, i] for i, n in enumerate(model.spec["dense"])} | {
        f["name"]: ids[:, i] for i, f in enumerate(model.spec["fields"])
    }
    assert (model.score(pa.table(raw)) - expected).abs().max() < 1e-6


def test_the_same_checkpoint_gives_the_same_bytes(trained, exported, tmp_path):
    export(trained.run, str(tmp_path / "again"), shard_bytes=300)
    assert (tmp_path / "again" / MANIFEST).read_bytes() == (exported / MANIFEST).read_bytes()


def test_an_export_that_fails_leaves_nothing_and_an_existing_folder_is_not_touched(trained, exported, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_vocabularies", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device; make room or name another folder"):
        export(trained.run, str(tmp_path / "x"), onnx=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="exists already; name a new folder"):
        export(trained.run, str(exported), onnx=False)


@pytest.mark.parametrize("skipped", [[], ["write_pt2"], ["write_pt2", "write_onnx"]])
def test_a_full_disk_is_one_line_whichever_file_finds_it_so(skipped, trained, tmp_path, monkeypatch):
    """The program, its ONNX, a table: each has a writer with errors of its own."""
    for name in skipped:
        monkeypatch.setattr(module, name, lambda *_: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(InputError, match="cannot be written: .*File too large.*; make room or name another folder"):
            export(trained.run, str(tmp_path / "x"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_any_flipped_byte_is_refused_by_name(exported, tmp_path):
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    for path in [*folder.glob("*.*"), next(folder.glob("tables/*")), next(folder.glob("vocab/*"))]:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(InputError, match=f"{path.name} is damaged"):
            verify(folder)
        path.write_bytes(content)
    verify(folder)
    next(folder.glob("tables/*")).unlink()
    with pytest.raises(InputError, match="is missing; export the run again"):
        verify(folder)
    with pytest.raises(InputError, match="is no export"):
        verify(tmp_path)
