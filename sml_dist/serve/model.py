"""An export in memory, from raw rows to scores: the Encoder that training used, then the tables and the program of the folder."""

import json
import logging
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sml_dist.data.clean import PER_SECOND, clean, flat
from sml_dist.data.dataset import matrix, multi_column
from sml_dist.data.schema import Timestamp
from sml_dist.serve import light
from sml_dist.serve.features import read_features
from sml_dist.serve.layout import CARD, verify, version_of
from sml_dist.serve.requests import Ask, Refusal, as_they_came, cells, failure, wanted
from sml_dist.spec import one_line

log = logging.getLogger("ray.serve")

SUGGESTED = 200  # values of a vocabulary that the page offers


@dataclass(frozen=True)
class Answer:
    """Of one request's rows: logit and probability (B,) float32, of several labels (B, labels); contributions (B, L) where asked."""

    version: str
    names: list[str]
    logit: np.ndarray
    probability: np.ndarray
    contributions: np.ndarray | None

    def as_dict(self) -> dict[str, Any]:
        found = {"model_version": self.version, "scores": self.probability.tolist(), "logits": self.logit.tolist()}
        if self.contributions is not None:
            found["contributions"] = {"layers": self.names, "rows": self.contributions.tolist()}
        return found

    def as_json(self) -> bytes:
        return orjson.dumps(self.as_dict())  # 4,096 rows of 20 layers in 3 ms, in which nobody else is answered; by json in 42

    def as_arrow(self) -> bytes:
        """An IPC stream of the columns score, logit and, where asked, contributions."""
        parts = {"score": self.probability, "logit": self.logit, "contributions": self.contributions}
        columns = {name: arrow_column(part) for name, part in parts.items() if part is not None}
        table = pa.table(columns).replace_schema_metadata({"model_version": self.version, "layers": ",".join(self.names)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()


def arrow_column(part: np.ndarray) -> pa.Array:
    """(B,) as numbers, (B, L) as lists of L."""
    if part.ndim == 1:
        return pa.array(part)
    return pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), part.shape[1])


class ServedModel:
    """Raises InputError for a folder that is no sound export."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).resolve()  # a link may be moved while its files are read
        verify(self.folder)
        self.version = version_of(self.folder)
        self.features = read_features(self.folder)
        self.schema, self.encoder = self.features.schema, self.features.encoder(self.folder)
        self.model = light.Model(self.folder)
        self.model.logits(*self._zeros())  # a program that cannot run is found here, not by a request

    def _zeros(self) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor]:
        """One row for light.Model.logits, of the id 0 everywhere."""
        one = torch.ones(1, dtype=torch.int64)
        ids = [
            (one - 1, one) if field.origin == "list" else (torch.zeros(1, field.max_length or 1, dtype=torch.int64), None)
            for field in self.features.fields
        ]
        return ids, torch.zeros(1, len(self.features.dense))

    def score(self, asks: list[Ask]) -> list[Answer | Refusal]:
        """All requests of a batch at once, each answered as if it were alone."""
        try:
            return self._score(asks)
        except (pa.ArrowException, ValueError, ArithmeticError) as error:
            fault = Refusal(422, "bad_value", one_line(error)[:200])
        except Exception:  # no memory, of which torch tells as a RuntimeError
            log.exception(f"{len(asks)} requests in a batch failed")
            fault = failure()
        return [fault] if len(asks) == 1 else [answer for ask in asks for answer in self.score([ask])]

    def _score(self, asks: list[Ask]) -> list[Answer | Refusal]:
        answers: list[Any] = [None] * len(asks)
        kinds = defaultdict(list)  # tables whose columns have other types are not joined
        for place, ask in enumerate(asks):
            kinds[ask.rows.schema].append(place)
        for places in kinds.values():
            found = self._score_alike([asks[place] for place in places])
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    def _score_alike(self, asks: list[Ask]) -> list[Answer | Refusal]:
        raw = pa.concat_tables([ask.rows for ask in asks])
        ends = np.cumsum([len(ask.rows) for ask in asks])
        rows, kept, rejects = clean(raw, np.arange(len(raw)), as_they_came(self.schema, raw.schema), labelled=False)
        faults = {}
        for reject in rejects:
            owner = int(np.searchsorted(ends, reject.row, side="right"))
            first = int(ends[owner]) - len(asks[owner].rows)
            faults.setdefault(owner, Refusal(422, "bad_value", f"row {reject.row - first + 1}: field {reject.column!r}: {reject.reason}"))
        logit, terms = (part.numpy() for part in self.model.logits(*self.tensors(self.encoder.encode(rows))))
        probability = torch.sigmoid(torch.from_numpy(logit)).numpy()
        stops = np.searchsorted(kept, ends)
        answers: list[Answer | Refusal] = []
        for place, (ask, start, stop) in enumerate(zip(asks, [0, *stops[:-1]], stops, strict=True)):
            part = slice(start, stop)
            shares = terms[part] if ask.contributions else None
            if place not in faults and (row := not_finite(logit[part], shares)):
                faults[place] = Refusal(
                    422, "not_finite", f"row {row}: its logit is not finite; a number in it is too large for this model"
                )
            made = Answer(self.version, self.features.contributions, logit[part], probability[part], shares)
            answers.append(faults.get(place, made))
        return answers

    def tensors(self, encoded: pa.Table) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor]:
        """What light.Model.logits takes, of encoded rows."""
        ids: list[tuple[Tensor, Tensor | None]] = []
        if "ids" in encoded.column_names:
            ids += [(column[:, None], None) for column in torch.from_numpy(matrix(encoded["ids"]).T.astype(np.int64))]
        for field in self.features.fields:
            if field.origin in ("list", "sequence"):
                values, offsets = flat(encoded[multi_column(field.name)].combine_chunks())
                found, lengths = torch.from_numpy(values.to_numpy().astype(np.int64)), torch.from_numpy(np.diff(offsets).astype(np.int64))
                ids.append((found, lengths) if field.origin == "list" else (by_place(found, lengths, field.max_length), None))
        count = len(self.features.dense)
        return ids, torch.tensor(matrix(encoded["dense"]) if count else np.zeros((len(encoded), 0), np.float32))

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the page needs: the inputs with their likeliest values, and how good the model is."""
        card = json.loads((self.folder / CARD).read_text())
        return {
            "model_version": self.version,
            "name": card["name"],
            "model": card["model"]["name"],
            "metrics": {k: v for k, v in card["metrics"]["valid"].items() if isinstance(v, float) and k != "seconds"},
            "quantize": self.features.quantize,
            "layers": self.features.contributions,
            "labels": self.features.labels,
            "inputs": [self._input(name) for name in self.features.inputs],
        }

    def _input(self, name: str) -> dict[str, Any]:
        separator = self.schema.list_separators.get(name)
        about = {"name": name, "takes": wanted(cells(self.schema)[name], separator), "separator": separator}
        if self.schema.timestamp and name == self.schema.timestamp.column:
            return about | {"kind": "time", "values": [now(self.schema.timestamp)]}
        kind = "number" if name in self.schema.numbers else "list" if name in self.schema.list_separators else "text"
        field = next((f for f in self.features.fields if f.column == name and f.vocabulary), None)
        known = self._first(field.vocabulary) if field and kind != "number" else []
        return about | {"kind": kind, "values": known}

    def _first(self, path: str) -> list[str]:
        """The first values of a vocabulary, of which it may have millions: those seen most often (in the first of datasets that go on)."""
        with pq.ParquetFile(self.folder / path) as file:
            return next(file.iter_batches(SUGGESTED), pa.table({"token": []}))["token"].to_pylist()


def now(timestamp: Timestamp) -> str:
    """As a log has it."""
    seconds = int(time.time())
    return time.strftime(timestamp.format, time.gmtime(seconds)) if timestamp.format else str(seconds * PER_SECOND[timestamp.unit])


def not_finite(*parts: np.ndarray | None) -> int:
    """The first row, from 1, with a number that JSON cannot hold, or 0."""
    bad = np.any([~np.isfinite(part.reshape(len(part), -1)).all(axis=1) for part in parts if part is not None], axis=0)
    return int(bad.argmax()) + 1 if bad.any() else 0


def by_place(values: Tensor, lengths: Tensor, most: int) -> Tensor:
    """Sequences, the newest id last, as (B, most) with the newest first and -1 where there is none."""
    places = torch.arange(most)[None]
    held = places < lengths[:, None]
    found = torch.full(held.shape, -1)
    found[held] = values[(lengths.cumsum(0)[:, None] - 1 - places)[held]]
    return found
