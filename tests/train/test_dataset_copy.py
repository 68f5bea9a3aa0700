"""What a run keeps of its dataset."""

from dataclasses import replace

import pytest

from sml_dist.data.dataset import MANIFEST, read_manifest
from sml_dist.data.synthetic import synth
from sml_dist.spec import InputError, to_dict
from sml_dist.train.dataset_copy import KEPT, keep_dataset
from sml_dist.train.run_folder import RunFolder
from sml_dist.train.storage import Storage


def test_a_vocabulary_that_is_gone_is_named_at_once_with_the_way_out_and_a_restored_one_is_kept(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    synth(200, str(data), fields=2, dense=1, table_rows=20)
    manifest = read_manifest(str(data))
    RunFolder(data).write_json(MANIFEST, to_dict(replace(manifest, source=manifest.source | {"vocabularies": {"C1": "vocab/C1.parquet"}})))
    with pytest.raises(InputError) as error:
        keep_dataset(str(data), Storage(run, waits=(1000.0,)))
    assert str(error.value) == f"{data}/vocab/C1.parquet is missing; restore the file or prepare the dataset again"
    assert not (run / KEPT).exists()
    (data / "vocab").mkdir()
    (data / "vocab/C1.parquet").write_bytes(b"tokens")
    keep_dataset(str(data), Storage(run, waits=()))
    assert (run / KEPT / "vocab/C1.parquet").read_bytes() == b"tokens"
    assert [path.name for path in run.iterdir()] == [KEPT]
