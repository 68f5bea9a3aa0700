"""A finished folder is looked at once, however many files it has."""

import fsspec
import pytest

from sml_dist.data.dataset import DataFile
from sml_dist.data.output import settle
from sml_dist.spec import InputError


def test_a_folder_of_many_files_is_listed_once_and_left_without_partial_ones(tmp_path, monkeypatch):
    fs, folder = fsspec.url_to_fs(str(tmp_path))
    files = [DataFile(path=f"train/part-{i}.parquet", rows=1, row_groups=[1], bytes=3, sha256="") for i in range(5)]
    (tmp_path / "train").mkdir()
    for name in [*(file.path for file in files), "train/part-9.parquet.partial"]:
        (tmp_path / name).write_bytes(b"abc")
    for call in ("exists", "size"):
        monkeypatch.setattr(fs, call, lambda path: pytest.fail(f"asks for {path} by itself"))
    settle(fs, folder, files)
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [f"part-{i}.parquet" for i in range(5)]
    (tmp_path / files[2].path).write_bytes(b"abcd")
    with pytest.raises(InputError, match="part-2.parquet has 4 bytes where 3 were written"):
        settle(fs, folder, files)
    (tmp_path / files[2].path).unlink()
    with pytest.raises(InputError, match="part-2.parquet has 0 bytes where 3 were written"):
        settle(fs, folder, files)
