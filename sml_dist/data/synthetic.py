"""`synth`: a prepared dataset of Criteo's shape drawn from a known model, so that the best reachable AUC is known too.

Row: ids ~ bounded Zipf per field, dense ~ N(0, 1), label ~ Bernoulli(σ(logit)), where

    logit = bias + linear + pairs + dense terms, scaled to 65 %, 10 % and 25 % of a variance at which the best AUC is about 0.80
    linear = Σ_f w_f[id_f]          pairs = Σ_(f,g) <v_f[id_f], v_g[id_g]> over two pairs of the smallest fields
    dense terms = Σ_j a_j·h_j(x),   h_j = x_j, tanh(2·x_j), x_j·x_(j+1), x_j, tanh(2·x_j), x_j, and so on

The weights w and v are hashes of (seed, field, id): a table of any size costs no memory. Rows are drawn in blocks of one
row group, each from a generator of its own, so (seed, rows, shape) fixes every byte and memory does not grow with rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

import numpy as np
import pyarrow as pa

from sml_dist.data.dataset import (
    ROW_GROUP_ROWS,
    SPLITS,
    Best,
    DataFile,
    Field,
    Manifest,
    Split,
    SplitWriter,
    arrow_schema,
)
from sml_dist.data.output import claimed, complete, writing
from sml_dist.spec import InputError

# Distinct values of the 26 categorical fields of the Criteo Kaggle logs.
CRITEO_CARDINALITIES = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194,
    27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip
FILE_ROWS = 64 * ROW_GROUP_ROWS
PAIRS, RANK = 2, 2
SHARES = np.array([[0.65], [0.1], [0.25]])  # of the logit's variance: linear, pairs, dense terms
DEVIATION, BASE_RATE = 1.4, 0.25
PROBABILITY_BINS = 2**18


def synth(
    rows: int,
    output: str,
    *,
    seed: int = 0,
    fields: int = 26,
    dense: int = 13,
    table_rows: int | Sequence[int] | None = None,
    zipf: float = 1.1,
    valid: float = 0.1,
    test: float = 0.1,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Manifest:
    """Writes `rows` rows to the folder `output` (local or any fsspec URL) and returns its manifest.

    table_rows: ids per field; or their total, shared out like Criteo's; or None for a total of rows / 200, at which a
    DCN-V2 comes within 0.012 of the best AUC in two epochs of 240,000 rows (0.02 at rows / 100, 0.05 at rows / 20: rare
    ids cannot be learnt). 4_300_000 gives the tables of the usual Criteo benchmark. zipf: exponent a of
    P(id = k) ≈ (k + 1)^−a; 0 is uniform. valid, test: shares of the rows. progress: called with the rows written so far.
    Raises InputError where `output` is in use or a number makes no sense; a failure leaves no dataset.
    """
    counts = split_counts(rows, valid, test)
    for name, given, least in (("fields", fields, 1), ("dense", dense, 0), ("zipf", zipf, 0), ("seed", seed, 0)):
        if given < least:
            raise InputError(f"{name} {given:g} is too small; give at least {least}")
    sizes = table_sizes(max(rows // 200, 4 * fields) if table_rows is None else table_rows, fields)
    with claimed(output, overwrite) as folder, writing(output):
        manifest = write_dataset(output, counts, PlantedModel.planted(seed, sizes, dense, zipf), progress)
        complete(folder, manifest)
    return manifest


def split_counts(rows: int, valid: float, test: float) -> dict[str, int]:
    """Rows of each split that has any."""
    if not (valid >= 0 and test >= 0 and valid + test < 1):
        raise InputError(f"valid {valid} and test {test} are shares of the rows: at least 0, and together below 1")
    held_out = {"valid": int(rows * valid), "test": int(rows * test)}
    if rows < 100:
        raise InputError(f"rows must be at least 100, not {rows}")
    counts = {"train": rows - sum(held_out.values())} | held_out
    return {name: counts[name] for name in SPLITS if counts[name]}


def table_sizes(table_rows: int | Sequence[int], fields: int) -> list[int]:
    """Ids per field. A total is shared out as Criteo's cardinalities under the cap that makes them sum to it."""
    if not isinstance(table_rows, int):
        sizes = [int(size) for size in table_rows]
        if len(sizes) != fields or min(sizes) < 1 or max(sizes) >= 2**31:
            raise InputError(f"table_rows holds {len(sizes)} sizes; give {fields}, one a field, each from 1 to 2^31 - 1")
        return sizes
    if not 2 * fields <= table_rows < 2**31:
        raise InputError(f"table_rows {table_rows} is not a total for {fields} fields; give {2 * fields} to {2**31 - 1}")
    cardinalities = np.array(list(islice(cycle(CRITEO_CARDINALITIES), fields)), np.int64)
    cardinalities *= -(-table_rows // cardinalities.sum())
    low, high = 1, int(cardinalities.max())  # the largest cap whose sum fits lies in [low, high]
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(cardinalities, middle).sum() <= table_rows else (low, middle - 1)
    sizes = np.minimum(cardinalities, low)
    sizes[np.flatnonzero(cardinalities > low)[: table_rows - sizes.sum()]] += 1
    return sizes.tolist()


def write_dataset(output: str, counts: dict[str, int], model: "PlantedModel", progress: Callable[[int], None]) -> Manifest:
    """Writes every split; the manifest is the caller's to write."""
    fields = [Field(name=f"C{i + 1}", rows=size) for i, size in enumerate(model.sizes)]
    dense = [f"I{j + 1}" for j in range(len(model.dense_weights))]
    schema = arrow_schema(fields, dense, weight=False, group=False, timestamp=False)
    splits, best, done = {}, {}, 0
    for name, count in counts.items():
        tally = BestTally()
        files = list(write_split(output, name, schema, model, count, tally, lambda rows, before=done: progress(before + rows)))
        splits[name] = Split(rows=count, positives=float(tally.positives.sum()), files=files)
        best[name] = tally.best()
        done += count
    return Manifest(
        name="synth",
        fields=fields,
        dense=dense,
        splits=splits,
        rows_read=done,
        rows_kept=done,
        rows_rejected=0,
        split_rule="random:" + ",".join(f"{count / done:g}" for count in counts.values()),
        source={"synth": {"seed": model.seed, "zipf": model.zipf}},
        best=best,
    )


def write_split(
    output: str, name: str, schema: pa.Schema, model: "PlantedModel", rows: int, tally: "BestTally", progress: Callable[[int], None]
) -> Iterator[DataFile]:
    """Writes the blocks of one split as files of at most FILE_ROWS rows."""
    for part, first in enumerate(range(0, rows, FILE_ROWS)):
        with SplitWriter(output, f"{name}/part-{part:05d}.parquet", schema) as writer:
            for start in range(first, min(first + FILE_ROWS, rows), ROW_GROUP_ROWS):
                stop = min(start + ROW_GROUP_ROWS, rows)
                ids, dense, logits, labels = model.draw(name, start // ROW_GROUP_ROWS, stop - start)
                writer.write(table(schema, ids, dense, labels))
                tally.add(logits, labels)
                progress(stop)
        yield writer.file


def table(schema: pa.Schema, ids: np.ndarray, dense: np.ndarray, labels: np.ndarray) -> pa.Table:
    columns = {"dense": dense, "ids": ids, "label": labels}
    arrays = [
        pa.FixedSizeListArray.from_arrays(pa.array(columns[field.name].reshape(-1)), type=field.type)
        if columns[field.name].ndim == 2
        else pa.array(columns[field.name])
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


@dataclass(frozen=True)
class PlantedModel:
    """The model that labels are drawn from; `logits` needs nothing but a row's features."""

    seed: int
    sizes: tuple[int, ...]  # ids per field
    zipf: float
    pairs: np.ndarray  # (P, 2) fields that interact
    dense_weights: np.ndarray  # (N,)
    centre: np.ndarray | float = 0.0  # of the three parts of the logit, (3, 1)
    scale: np.ndarray | float = 1.0
    bias: float = 0.0

    @classmethod
    def planted(cls, seed: int, sizes: Sequence[int], dense: int, zipf: float) -> "PlantedModel":
        """Chooses pairs and weights by seed; brings the logit to its deviation and base rate on 65,536 rows of its own."""
        rng = np.random.default_rng((seed, 0))
        smallest = np.argsort(sizes, kind="stable")[: 2 * min(PAIRS, len(sizes) // 2)]
        pairs = rng.permutation(smallest).reshape(-1, 2)
        weights = rng.choice([-1, 1], dense) * rng.uniform(0.5, 1.5, dense)
        model = cls(seed, tuple(sizes), zipf, pairs, weights)
        parts = model.parts(*model.features(np.random.default_rng((seed, 1)), 4 * ROW_GROUP_ROWS))
        deviation = parts.std(axis=1, keepdims=True)
        shares = np.where(deviation > 0, SHARES, 0)
        scale = DEVIATION * np.sqrt(shares / max(shares.sum(), 1e-9)) / np.where(deviation > 0, deviation, 1)
        model = replace(model, centre=parts.mean(axis=1, keepdims=True), scale=scale)
        return replace(model, bias=bias_for(BASE_RATE, model.logits_of(parts)))

    def draw(self, split: str, block: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """ids int32 (rows, F), dense float32 (rows, N), logits float64 (rows,), labels float32 (rows,) of one block of a split."""
        rng = np.random.default_rng((self.seed, 2, SPLITS.index(split), block))
        ids, dense = self.features(rng, rows)
        logits = self.logits(ids, dense)
        return ids, dense, logits, (rng.random(rows) < sigmoid(logits)).astype(np.float32)

    def features(self, rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
        ids = zipf_ids(rng.random((rows, len(self.sizes))), np.array(self.sizes), self.zipf)
        return ids, rng.standard_normal((rows, len(self.dense_weights)), np.float32)

    def logits(self, ids: np.ndarray, dense: np.ndarray) -> np.ndarray:
        return self.logits_of(self.parts(ids, dense))

    def logits_of(self, parts: np.ndarray) -> np.ndarray:
        return (self.scale * (parts - self.centre)).sum(axis=0) + self.bias

    def parts(self, ids: np.ndarray, dense: np.ndarray) -> np.ndarray:
        """The linear, the pairs' and the dense part before scaling, (3, rows)."""
        fields = np.arange(ids.shape[1])
        linear = hashed_weights(self.seed, fields, ids, 0).sum(axis=1)
        left, right = self.pairs.T
        pairs = sum(
            hashed_weights(self.seed, left, ids[:, left], k) * hashed_weights(self.seed, right, ids[:, right], k)
            for k in range(1, RANK + 1)
        )
        return np.stack([linear, pairs.sum(axis=1), dense_terms(dense.astype(np.float64)) @ self.dense_weights])


def zipf_ids(uniform: np.ndarray, sizes: np.ndarray, exponent: float) -> np.ndarray:
    """int32 ids in [0, sizes), (B, F), from uniform numbers in [0, 1): the floor of a Pareto variable on [1, size + 1).

    P(id = k) = ∫_{k+1}^{k+2} x^−a dx / ∫_1^{size+1} x^−a dx; its inverse distribution needs no table.
    """
    if abs(exponent - 1) < 1e-6:
        x = np.exp(uniform * np.log(sizes + 1.0))
    else:
        power = 1 - exponent
        x = (1 + uniform * ((sizes + 1.0) ** power - 1)) ** (1 / power)
    return np.clip(x.astype(np.int64) - 1, 0, sizes - 1).astype(np.int32)


def hashed_weights(seed: int, fields: np.ndarray, ids: np.ndarray, component: int) -> np.ndarray:
    """Weight of every id, (B, F): the splitmix64 hash of (seed, component, field, id), uniform with mean 0 and deviation 1."""
    keys = np.random.SeedSequence((seed, 3, component)).generate_state(1, np.uint64) + fields.astype(np.uint64) * np.uint64(2**32)
    x = (keys + ids.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return (x.astype(np.float64) / 2.0**63 - 1) * np.sqrt(3)


def dense_terms(x: np.ndarray) -> np.ndarray:
    """(B, N) → (B, N): of every six columns two are bent by tanh(2·x) and one is multiplied by its right neighbour."""
    terms = x.copy()
    terms[:, 1::3] = np.tanh(2 * x[:, 1::3])
    terms[:, 2::6] = x[:, 2::6] * np.roll(x, -1, axis=1)[:, 2::6]
    return terms


def bias_for(rate: float, logits: np.ndarray) -> float:
    """The constant under which the mean of σ(logits + bias) is the rate."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(logits + middle).mean() < rate else (low, middle)
    return low


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


class BestTally:
    """AUC and logloss of the true probabilities over the rows added; the AUC from bins of the probability, 4e-6 wide."""

    def __init__(self):
        self.positives, self.negatives, self.loss = np.zeros(PROBABILITY_BINS), np.zeros(PROBABILITY_BINS), 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        bins = (sigmoid(logits) * PROBABILITY_BINS).astype(np.int64)
        self.positives += np.bincount(bins, labels, PROBABILITY_BINS)
        self.negatives += np.bincount(bins, 1 - labels, PROBABILITY_BINS)
        self.loss += float(np.logaddexp(0, logits).sum() - labels @ logits)

    def best(self) -> Best:
        positives, negatives = self.positives.sum(), self.negatives.sum()
        won = self.positives @ (np.cumsum(self.negatives) - self.negatives / 2)
        return Best(auc=float(won / max(positives * negatives, 1)), logloss=self.loss / (positives + negatives))
