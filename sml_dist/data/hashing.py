"""Stable 64-bit hashes of tokens and rows: the same in every process, on every machine, in every version.

    hash64(token, seed) = fmix64(fnv1a64(utf8(seed) + 0x00 + utf8(token)))

FNV-1a 64: start 0xcbf29ce484222325; for each byte, xor it in, then multiply by 0x100000001b3 (mod 2**64). fmix64 is
murmur3's finaliser: FNV alone leaves the low bits of short tokens poor, and ids are `hash % rows`.
"""

import numpy as np
import pyarrow as pa

FNV_START, FNV_PRIME, MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1

FEW = 32  # of so few tokens, as rows to be served have, a step costs more than its arithmetic: it is 4 us, a byte in Python 0.08


def fnv1a64(data: bytes, state: int = FNV_START) -> int:
    for byte in data:
        state = (state ^ byte) * FNV_PRIME & MASK
    return state


def fmix64(hashes: np.ndarray) -> np.ndarray:
    """A bijection of uint64 in which every input bit moves every output bit."""
    hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return hashes ^ (hashes >> np.uint64(33))


def hash64(tokens: pa.Array, seed: str = "") -> np.ndarray:
    """uint64[n] of a string array without nulls; one vector step per byte position, until the longest few tokens are left."""
    if len(tokens) <= FEW:
        return fmix64(np.array([fnv1a64(f"{seed}\0{token}".encode()) for token in tokens.to_pylist()], np.uint64))
    tokens = tokens.cast(pa.large_string())
    _, offset_buffer, data_buffer = tokens.buffers()
    state = np.full(len(tokens), fnv1a64(seed.encode() + b"\0"), np.uint64)
    if not data_buffer:
        return fmix64(state)
    offsets = np.frombuffer(offset_buffer, np.int64)[tokens.offset : tokens.offset + len(tokens) + 1]
    data = np.frombuffer(data_buffer, np.uint8)
    starts, lengths = offsets[:-1], np.diff(offsets)
    active, position = np.flatnonzero(lengths), 0
    while len(active) > FEW:
        state[active] = (state[active] ^ data[starts[active] + position]) * np.uint64(FNV_PRIME)
        position += 1
        active = active[lengths[active] > position]
    for i in active:
        state[i] = fnv1a64(data[starts[i] + position : offsets[i + 1]].tobytes(), int(state[i]))
    return fmix64(state)


def row_uniform(seed: int, file: int, rows: np.ndarray) -> np.ndarray:
    """float64[n] in [0, 1): a fixed uniform number for each row number of a file."""
    key = np.uint64(fnv1a64(f"{seed}:{file}".encode()))
    return (fmix64(fmix64(rows.astype(np.uint64)) ^ key) >> np.uint64(11)) * 2.0**-53
