"""Content vectors of short texts from hashed TF-IDF and a truncated SVD."""

import numpy as np
import polars as pl
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from ligr_jax.data.sources.ids import hash_strings
from ligr_jax.ops.hashing import mix64

BUCKETS = 1 << 15  # hash buckets of terms
DECIMALS = 5  # decimals of coordinates


def words(text: pl.Expr) -> pl.Expr:
    """Return the lower-case words of texts, a list per text; [] for null."""
    return text.fill_null("").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")


def text_vectors(terms: pl.Series, width: int) -> np.ndarray:
    """Compute content vectors by latent semantic analysis (Deerwester et al. 1990).

    The weight of a hashed term is tf * (ln((1 + n) / (1 + df)) + 1). Rows are scaled to length 1
    and projected on the `width` leading singular directions. Signs are fixed and coordinates are
    rounded, so that equal texts give equal bytes, except for equal singular values.

    Args:
        terms: list of terms of each text, [N].
        width: W.

    Returns:
        float32 [N, W] of length 1, or zeros for a text without terms.
    """
    # Term counts by hash bucket.
    n = len(terms)
    lengths = terms.list.len().fill_null(0).to_numpy()
    flat = terms.filter(terms.list.len() > 0).explode(empty_as_null=False)
    bucket = (mix64(hash_strings(flat)) % np.uint64(BUCKETS)).astype(np.int64)
    row = np.repeat(np.arange(n), lengths)
    counts = sp.csr_array((np.ones(len(row)), (row, bucket)), shape=(n, BUCKETS))
    counts.sum_duplicates()
    # TF-IDF weights, and rows of length 1.
    df = np.bincount(counts.indices, minlength=BUCKETS)
    weighted = (counts * (np.log((1 + n) / (1 + df)) + 1)).tocsr()
    weighted = weighted[:, np.flatnonzero(df)]
    norm = np.sqrt(weighted.multiply(weighted).sum(axis=1))
    weighted = sp.diags_array(1 / np.maximum(norm, 1e-12)) @ weighted
    # Leading singular directions. A fixed start vector makes the result deterministic.
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
