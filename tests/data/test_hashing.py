"""Laws of the stable hashes."""

import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from sml_dist.data.hashing import FEW, MASK, hash64, row_uniform


def naive(token: str, seed: str) -> int:
    """FNV-1a 64 and murmur3's finaliser, byte by byte in plain integers."""
    state = 0xCBF29CE484222325
    for byte in seed.encode() + b"\0" + token.encode():
        state = (state ^ byte) * 0x100000001B3 & MASK
    state = (state ^ (state >> 33)) * 0xFF51AFD7ED558CCD & MASK
    state = (state ^ (state >> 33)) * 0xC4CEB9FE1A85EC53 & MASK
    return state ^ (state >> 33)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
def test_the_vectorised_hash_equals_a_naive_loop(tokens, seed):
    for some in (tokens, FEW * tokens):
        assert hash64(pa.array(some, pa.string()), seed).tolist() == [naive(token, seed) for token in some]


def test_a_token_hashes_the_same_in_a_slice_and_in_a_large_string_array():
    tokens = pa.array(["a", "", "bcd", "é", "a"] * FEW)
    whole = hash64(tokens, "f")
    assert hash64(tokens.slice(2), "f").tolist() == whole[2:].tolist()
    assert hash64(tokens.cast(pa.large_string()), "f").tolist() == whole.tolist()
    assert whole[0] == whole[4]


def test_a_long_token_costs_its_own_bytes_among_many_short_ones():
    def seconds(tokens):
        start = time.process_time()
        hash64(pa.array(tokens))
        return time.process_time() - start

    long = "a" * 300_000
    alone, among = [long], [long, *map(str, range(4 * FEW))]
    seconds(among)  # the first call in a process costs more
    assert min(seconds(among) for _ in range(3)) < 5 * min(seconds(alone) for _ in range(3)) + 0.01


def test_the_hash_is_the_same_in_every_process():
    code = "import pyarrow as pa; from sml_dist.data.hashing import hash64; print(hash64(pa.array(['68fd1e64', '']), 'C1').tolist())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{[naive('68fd1e64', 'C1'), naive('', 'C1')]}\n".encode()}


def test_fields_hash_the_same_token_differently():
    token = pa.array(["x"])
    assert hash64(token, "C1") != hash64(token, "C2")


def test_short_tokens_fill_hash_rows_evenly():
    counts = np.bincount(hash64(pa.array([str(i) for i in range(100_000)]), "f") % np.uint64(100), minlength=100)
    assert abs(counts - 1000).max() < 200  # 6 standard deviations


def test_row_numbers_are_uniform_and_differ_between_seeds_and_files():
    rows = np.arange(1, 100_001)
    draws = [row_uniform(seed, file, rows) for seed, file in ((0, 0), (1, 0), (0, 1))]
    for draw in draws:
        assert draw.min() >= 0 and draw.max() < 1
        assert abs(np.histogram(draw, 10, (0, 1))[0] - 10_000).max() < 600
    assert abs(np.corrcoef(draws)[np.triu_indices(3, 1)]).max() < 0.02
