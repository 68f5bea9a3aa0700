"""The loader reads columns of any type as prepare does, without a model."""

import pyarrow as pa
import pytest

from sml_dist.serve.light import Model


def reader(*missing: str) -> Model:
    model = Model.__new__(Model)
    model.spec = {"missing": [*missing]}
    return model


@pytest.mark.parametrize("kind", [pa.string(), pa.int8(), pa.float32(), pa.decimal128(19, 0)])
def test_a_number_that_spells_missing_is_missing_in_every_type(kind):
    numbers = pa.chunked_array([pa.array([-1, 3]).cast(kind)])
    assert reader("-1").number(numbers).isnan().tolist() == [True, False]
    assert reader().number(numbers).tolist() == [-1, 3]
