"""What a job takes along of a checkout."""

import tempfile
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from ray._private.runtime_env.packaging import create_package


def pack(folder: Path, target: Path) -> Path:
    """Writes the folder's files, but for those that .rayignore and .gitignore name, as a zip.

    Ray chooses the files; its own package of them is not compressed, and three times as large.
    """
    with tempfile.TemporaryDirectory() as scratch:
        create_package(str(folder), Path(scratch) / "stored.zip", include_gitignore=True)
        with ZipFile(Path(scratch) / "stored.zip") as stored, ZipFile(target, "w") as packed:
            for entry in stored.infolist():
                packed.writestr(entry, stored.read(entry), ZIP_DEFLATED)
    return target
