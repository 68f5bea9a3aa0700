"""What a dataset goes on from: the vocabularies and statistics of an earlier one (`prepare --extend`).

A run trained on the one can start one on the other: no row of its tables loses its value, no number its scale.
"""

from dataclasses import dataclass

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sml_dist.credentials import refuse
from sml_dist.data.dataset import MANIFEST, read_manifest
from sml_dist.data.files import file_system
from sml_dist.data.numeric import Statistics
from sml_dist.data.schema import Schema
from sml_dist.spec import InputError, from_dict, one_line


@dataclass(frozen=True)
class Earlier:
    """An earlier dataset, or a run's copy of its own; `vocabularies` are files by field."""

    root: str
    schema: Schema
    statistics: Statistics
    vocabularies: dict[str, str]

    @staticmethod
    def of(where: str) -> "Earlier":
        """Of the folder of a dataset, or of a run. Raises InputError."""
        refuse(where, "--extend")
        fs, folder = file_system(where)
        kept = f"{where.rstrip('/')}/dataset"
        root = kept if fs.exists(f"{folder.rstrip('/')}/dataset/{MANIFEST}") else where
        source = read_manifest(root).source
        if "vocabularies" not in source:
            raise InputError(f"--extend {where}: a synthetic dataset has no vocabularies; name one that `sml-dist prepare` wrote")
        return Earlier(root, from_dict(Schema, source["schema"]), from_dict(Statistics, source["statistics"]), source["vocabularies"])

    def kept(self, standard: list[str], buckets: dict[str, int]) -> Statistics:
        """Its statistics of the columns that are standardised, or cut into as many buckets, now as then."""
        edges = {
            feature.column: self.statistics.edges[feature.column]
            for feature in self.schema.features
            if feature.buckets and buckets.get(feature.column) == feature.buckets
        }
        return Statistics(moments={c: self.statistics.moments[c] for c in standard if c in self.statistics.moments}, edges=edges)

    def extended(self, name: str, found: pa.Table) -> pa.Table:
        """A field's vocabulary followed by the tokens that are new in `found`, which holds those that its rows have `min_count` times; the
        counts of the others are added up."""
        if name not in self.vocabularies:
            return found
        path = f"{self.root}/{self.vocabularies[name]}"
        try:
            with fsspec.open(path, "rb") as file:
                known = pq.read_table(file, use_threads=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"--extend: {path} cannot be read: {one_line(error)}") from None
        seen = pc.index_in(known["token"], value_set=found["token"].combine_chunks())
        more = pc.fill_null(found["count"].take(seen), 0)
        new = found.filter(pc.invert(pc.is_in(found["token"], value_set=known["token"].combine_chunks())))
        return pa.concat_tables([known.set_column(1, "count", pc.add(known["count"], more)), new])
