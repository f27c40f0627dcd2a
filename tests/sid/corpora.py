"""Small corpora: vectors in clusters, as a Parquet file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def clusters(items: int = 600, width: int = 6, seed: int = 0) -> np.ndarray:
    """float32 [items, width]: twelve clusters with noise."""
    rng = np.random.default_rng(seed)
    centers = 3 * rng.standard_normal((12, width))
    x = centers[rng.integers(0, 12, items)] + 0.5 * rng.standard_normal((items, width))
    return x.astype(np.float32)


def write_items(path: Path, vectors: np.ndarray, ids: np.ndarray | None = None) -> Path:
    """Parquet with item_id (1000, 1001, ... where not given) and the column `content`."""
    content = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    ids = 1000 + np.arange(len(vectors)) if ids is None else ids
    pq.write_table(pa.table({"item_id": ids, "content": content}), path)
    return path
