"""Keys keep their worth, and their text is as in the log."""

from uuid import UUID

import pyarrow as pa

from sml_dist.scoring.raw_keys import as_key, plain_type


def test_a_uuid_is_passed_on_as_its_text():
    column = pa.chunked_array([pa.ExtensionArray.from_storage(pa.uuid(), pa.array([UUID(int=7).bytes, None], pa.binary(16)))])
    assert as_key(column, "id", plain_type(column.type), "a.parquet").to_pylist() == [str(UUID(int=7)), None]
