"""Writing the table of semantic ids: item_id and one column per level."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ligr_jax.atomic import atomic_path, make_directory
from ligr_jax.sid.corpus import Corpus
from ligr_jax.sid.model import SidModel


def assign(model: SidModel, corpus: Corpus, out: Path) -> int:
    """Write the semantic ids of all items with content to a Parquet file.

    Columns: item_id (int64), c1 ... cN (int32, each in 0..K-1), in the order of the source.
    Metadata of the file: `sid_digest` (of the model), `sid_codes` (K), `sid_levels` (N).

    Args:
        model: trained model.
        corpus: items.
        out: file to write.

    Returns:
        The number of items with ids. Items without content have no row.
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
    with atomic_path(out) as part, pq.ParquetWriter(part, schema) as writer:
        for ids, _, codes, _ in model.code(corpus):
            columns = [ids, *np.ascontiguousarray(codes.T)]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return len(corpus)
