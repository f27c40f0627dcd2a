"""Content vectors of short texts without a model: hashed TF-IDF, then a truncated SVD."""

import numpy as np
import polars as pl
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from ligr_jax.data.sources.ids import hash_strings
from ligr_jax.ops.hashing import mix64

BUCKETS = 1 << 15
DECIMALS = 5


def text_vectors(terms: pl.Series, width: int) -> np.ndarray:
    """float32 [texts, width], unit length (zeros for a text without terms), from lists of terms.

    Latent semantic analysis (Deerwester et al. 1990): weight tf * (ln((1 + n) / (1 + df)) + 1) per
    hashed term, rows scaled to length 1, then the leading `width` singular directions, largest
    first. Signs are fixed and coordinates rounded to DECIMALS, far above the noise of summing in
    another order: equal texts give equal bytes, but for directions of equal singular values.
    """
    n = len(terms)
    lengths = terms.list.len().fill_null(0).to_numpy()
    flat = terms.filter(terms.list.len() > 0).explode(empty_as_null=False)
    bucket = (mix64(hash_strings(flat)) % np.uint64(BUCKETS)).astype(np.int64)
    row = np.repeat(np.arange(n), lengths)
    counts = sp.csr_array((np.ones(len(row)), (row, bucket)), shape=(n, BUCKETS))
    counts.sum_duplicates()
    df = np.bincount(counts.indices, minlength=BUCKETS)
    weighted = (counts * (np.log((1 + n) / (1 + df)) + 1)).tocsr()
    weighted = weighted[:, np.flatnonzero(df)]
    norm = np.sqrt(weighted.multiply(weighted).sum(axis=1))
    weighted = sp.diags_array(1 / np.maximum(norm, 1e-12)) @ weighted
    out = np.zeros((n, width), np.float32)
    rank = min(width, min(weighted.shape) - 1)
    if rank < 1:
        return out
    u, s, vt = svds(weighted, k=rank, v0=np.ones(min(weighted.shape)), rng=0)
    order = np.argsort(-s, kind="stable")
    u, s, vt = u[:, order], s[order], vt[order]
    signs = np.sign(vt[np.arange(rank), np.abs(vt).argmax(axis=1)])
    projected = u * (s * signs)
    length = np.linalg.norm(projected, axis=1, keepdims=True)
    out[:, :rank] = np.round(projected / np.maximum(length, 1e-12), DECIMALS) + 0.0  # no -0.0
    return out
