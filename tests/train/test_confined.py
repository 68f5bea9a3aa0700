"""A checkpoint's manifest names files of its own folder that have a hash, and no other."""

import hashlib
import json

import pytest

from sml_dist.train.checkpoint import FORMAT, MANIFEST, Damaged, read
from sml_dist.train.storage import Storage


@pytest.mark.parametrize("file", ["../other.safetensors", "rank-9.safetensors"])
def test_a_checkpoint_that_names_a_file_without_a_hash_of_its_own_is_refused(tmp_path, file):
    manifest = {"format": FORMAT, "files": {"rank-0.safetensors": "00"}, "tensors": {"t": {"pieces": [{"file": file}]}}}
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-1" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(Damaged, match="is no file of it with a hash"):
        read(Storage(tmp_path), "step-1")
