"""A table of semantic ids: item_id and a column for each level, written as it is made."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ligr_jax.atomic import make_directory, whole
from ligr_jax.sid.corpus import Corpus
from ligr_jax.sid.model import SidModel


def assign(model: SidModel, corpus: Corpus, out: Path) -> int:
    """Writes OUT, Parquet; returns how many items have ids. Items without content get no row.

    Columns: item_id (int64), c1 ... cN (int32, each in 0..K-1), in the order of the source.
    Metadata of the file: `sid_digest` (of the model), `sid_codes` (K), `sid_levels` (N).
    """
    levels = range(1, model.config.levels + 1)
    about = {
        "sid_digest": model.digest,
        "sid_codes": str(model.config.codes),
        "sid_levels": str(model.config.levels),
    }
    fields = [("item_id", pa.int64()), *((f"c{i}", pa.int32()) for i in levels)]
    schema = pa.schema(fields, metadata=about)
    make_directory(out.parent)
    with whole(out) as part, pq.ParquetWriter(part, schema) as writer:
        for ids, _, codes, _ in model.code(corpus):
            columns = [ids, *np.ascontiguousarray(codes.T)]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return len(corpus)
