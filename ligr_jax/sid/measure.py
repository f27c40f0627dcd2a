"""Quality of semantic ids, measured on the whole corpus."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xxhash

from ligr_jax.sid.corpus import Corpus
from ligr_jax.sid.model import SidModel


@dataclass(frozen=True)
class Quality:
    """Quality of semantic ids.

    Attributes:
        items: items with content.
        without: items without content, which have no ids.
        vectors: number of distinct vectors.
        equal: items that share their vector with another item, and therefore their tuple.
        tuples: number of distinct tuples.
        unique: fraction of the distinct vectors whose tuple no other vector has.
        bucket: largest number of distinct vectors with one tuple.
        bucket_items: largest number of items with one tuple.
        used: per level, fraction of the K codes that occur.
        perplexity: per level, exp of the entropy of the codes' shares of items; at most K.
        error: sum |x - x_hat|^2 / sum |x - mean|^2, the fraction of variance that is lost.
    """

    items: int
    without: int
    vectors: int
    equal: int
    tuples: int
    unique: float
    bucket: int
    bucket_items: int
    used: tuple[float, ...]
    perplexity: tuple[float, ...]
    error: float

    def lines(self) -> list[str]:
        """Return the measures as lines of text."""
        k = [f"{u:.1%} used, perplexity {p:.1f}" for u, p in zip(self.used, self.perplexity)]
        return [
            f"{self.items:,} items, {self.vectors:,} distinct vectors, {self.tuples:,} tuples",
            f"{self.unique:.2%} of distinct vectors have a unique tuple; "
            f"the largest tuple has {self.bucket:,} vectors ({self.bucket_items:,} items)",
            *(f"level {i}: {text}" for i, text in enumerate(k, 1)),
            f"reconstruction loses {self.error:.4f} of the variance",
            *self.remarks(),
        ]

    def remarks(self) -> list[str]:
        """Return lines on items that must collide and on items without ids."""
        remarks = []
        if self.equal:
            remarks.append(f"{self.equal:,} items have the vector, and so the tuple, of another")
        if self.without:
            remarks.append(f"{self.without:,} items have no content and no ids")
        return remarks


class Measured(NamedTuple):
    """Quality, with ids int64 [items with content] and codes int32 [items with content, N]."""

    quality: Quality
    ids: np.ndarray
    codes: np.ndarray


def measure_codes(model: SidModel, corpus: Corpus) -> Measured:
    """Encode the whole corpus and measure the result."""
    _, variance = corpus.moments()
    ids, codes, prints, lost = [], [], [], 0.0
    for some, x, code, x_hat in model.code(corpus):
        ids.append(some)
        codes.append(code)
        prints.append(_fingerprints(x))
        lost += float(np.square(x - x_hat, dtype=np.float64).sum())
    every = np.concatenate(codes)
    spread = variance * corpus.width * len(corpus)
    return Measured(
        quality(
            every,
            np.concatenate(prints),
            model.config.codes,
            lost / spread if spread else 0.0,
            len(corpus.ids) - len(corpus),
        ),
        np.concatenate(ids),
        every,
    )


def quality(
    codes: np.ndarray, vectors: np.ndarray, k: int, error: float = 0.0, without: int = 0
) -> Quality:
    """Return the quality of codes.

    Args:
        codes: int32 [items, N] in 0..k-1.
        vectors: [items], numbers that are equal for equal vectors.
        k: codes per level.
        error: fraction of variance that is lost.
        without: items without content.
    """
    _, first, vector, copies = np.unique(
        vectors, return_index=True, return_inverse=True, return_counts=True
    )
    tuples, tuple_of, items_on = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    vectors_on = np.bincount(tuple_of.ravel()[first], minlength=len(tuples))
    shares = [np.bincount(column, minlength=k) / len(codes) for column in codes.T]
    return Quality(
        items=len(codes),
        without=without,
        vectors=len(first),
        equal=int((copies[vector] > 1).sum()),
        tuples=len(tuples),
        unique=float((vectors_on == 1).sum() / len(first)),
        bucket=int(vectors_on.max()),
        bucket_items=int(items_on.max()),
        used=tuple(float((share > 0).mean()) for share in shares),
        perplexity=tuple(_perplexity(share) for share in shares),
        error=error,
    )


def _fingerprints(x: np.ndarray) -> np.ndarray:
    """Return uint64 [B], equal for equal rows of x [B, W]; -0 equals 0."""
    rows = x + np.float32(0)
    return np.array([xxhash.xxh3_64_intdigest(row.tobytes()) for row in rows], np.uint64)


def _perplexity(share: np.ndarray) -> float:
    present = share[share > 0]
    return float(np.exp(-(present * np.log(present)).sum()))
