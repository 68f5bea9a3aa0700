"""What a dataset's manifest names lies in the dataset's own folder."""

import json
from pathlib import Path

import pytest

from sml_dist.data.dataset import read_manifest
from sml_dist.data.synthetic import synth
from sml_dist.spec import InputError, confined


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "train/../../x", "s3://bucket/x", "", "..\\x"])
def test_no_path_leads_out_of_the_folder(path):
    with pytest.raises(ValueError, match="leads out of the folder"):
        confined(path)


@pytest.mark.parametrize("where", ["file", "vocabulary"])
def test_a_dataset_that_names_a_file_elsewhere_is_refused(tmp_path: Path, where: str):
    synth(100, str(tmp_path), fields=2, dense=1, table_rows=20)
    manifest = json.loads((tmp_path / "dataset.json").read_text())
    if where == "file":
        manifest["splits"]["train"]["files"][0]["path"] = "../other/part-0.parquet"
    else:
        manifest["source"]["vocabularies"] = {"C1": "../../etc/passwd"}
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="leads out of the folder"):
        read_manifest(str(tmp_path))
