"""The configs of the public protocols against what the benchmark (BARS) logged of its runs."""

from pathlib import Path

import pytest
import torch

from sml_dist.config.run import load
from sml_dist.data.schema import load_schema
from sml_dist.models.fields import FieldShape
from sml_dist.models.zoo import build

ROOT = Path(__file__).parents[2] / "configs"
PROTOCOLS = ["criteo_x1", "criteo_x4", "avazu_x1", "avazu_x4"]
CONFIGS = [path for protocol in PROTOCOLS for path in sorted((ROOT / protocol).glob("*.yaml"))]
# Rows of the benchmark's tables. Its releases before 2 have a row a field less.
CRITEO_X1, CRITEO_X4, AVAZU_X1, AVAZU_X4 = 2_086_329, 910_747, 1_298_621, 3_750_999


def parameters(path: Path, shape: FieldShape) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(load(str(path)).model, shape).parameters())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.stem}-{path.stem}")
def test_a_config_fits_the_fields_of_its_schema_and_its_batch_the_streams(path):
    config, schema = load(str(path)), load_schema(path.parent.stem)
    parameters(path, FieldShape(fields=len(schema.features), dim=config.embedding.dim, dense=len(schema.dense)))
    assert config.train.global_batch_size % config.data.streams == 0
    assert config.data.path.endswith(schema.name)


def test_finalmlps_context_on_criteo_x1_is_the_published_field():
    [place] = load(str(ROOT / "criteo_x1/finalmlp.yaml")).model.second_context
    assert load_schema("criteo_x1").features[place].name == "C6"


@pytest.mark.parametrize(
    ("name", "fields", "dense", "others"),
    [
        ("criteo_x1/deepfm", 26, 13, 23_429_477 - (CRITEO_X1 - 26) * 11),
        ("criteo_x4/dcn_v2", 39, 0, 20_382_577 - CRITEO_X4 * 16),
        ("avazu_x1/dnn", 22, 0, 13_395_591 - (AVAZU_X1 - 22) * 10),
        ("avazu_x1/deepfm", 22, 0, 14_696_590 - (AVAZU_X1 - 22) * 11),
        ("avazu_x1/dcn_v2", 22, 0, 13_641_311 - (AVAZU_X1 - 22) * 10),
        ("avazu_x1/finalmlp", 22, 0, 13_979_472 - AVAZU_X1 * 10 - 1),  # theirs: a second bias
        # published with a field for the weekend
        ("avazu_x4/deepfm", 24, 0, 76_544_576 - (AVAZU_X4 - 24) * 17),
        ("avazu_x4/dcn_v2", 24, 0, 73_385_345 - (AVAZU_X4 - 24) * 16),
    ],
)
def test_a_model_has_the_parameters_that_its_published_run_logged_beside_the_tables(name, fields, dense, others):
    path = ROOT / f"{name}.yaml"
    assert parameters(path, FieldShape(fields=fields, dim=load(str(path)).embedding.dim, dense=dense)) == others


def test_finalmlp_on_criteo_x4_has_the_published_parameters_and_its_gates():
    path = ROOT / "criteo_x4/finalmlp.yaml"
    gate = 16 + (16 + 1) * 64 + (64 + 1) * 39 * 16
    assert parameters(path, FieldShape(fields=39, dim=16, dense=0)) == 19_524_954 - CRITEO_X4 * 16 - 1 + 2 * gate
