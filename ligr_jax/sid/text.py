"""Content vectors of titled and tagged items without a model: hashed TF-IDF, randomly projected.

A random projection preserves distances (Johnson and Lindenstrauss 1984), so that distinct titles
get distinct vectors and codes. The leading singular vectors of the same matrix would map titles of
rare words to almost the same point.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from ligr_jax.atomic import atomic_path, make_directory
from ligr_jax.data.prepare.shards import fixed_size_lists
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.files import read_whole
from ligr_jax.data.sources.ids import hash_strings
from ligr_jax.ops.hashing import mix64
from ligr_jax.sid.corpus import item_ids

BUCKETS = 1 << 16
SEED = 0


def title_vectors(titles: pl.Series, tags: pl.Series, width: int) -> np.ndarray:
    """Return content vectors float32 [items, W] of length 1; zeros without title and tags.

    Half of the squared length is from the title (words, and trigrams of characters with marked word
    ends), half from the tags. Terms are weighted by tf * (ln((1 + n) / (1 + df)) + 1), hashed into
    BUCKETS, and projected by a fixed Gaussian matrix, so equal texts give equal vectors.

    Args:
        titles: strings.
        tags: lists of strings.
        width: W.
    """
    words = titles.fill_null("").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")
    blocks = [words, words.map_elements(_trigrams, pl.List(pl.String)), tags]
    weights = np.sqrt([0.25, 0.25, 0.5])
    out = np.zeros((len(titles), width), np.float32)
    for number, (terms, weight) in enumerate(zip(blocks, weights)):
        rng = np.random.default_rng([SEED, number])
        projection = rng.standard_normal((BUCKETS, width), np.float32) / np.sqrt(width)
        out += np.float32(weight) * (_tf_idf(terms) @ projection)
    length = np.linalg.norm(out, axis=1, keepdims=True)
    result: np.ndarray = out / np.maximum(length, np.float32(1e-12))
    return result


def write_title_vectors(
    table: Path, out: Path, id_column: str, title: str, tags: str | None, width: int
) -> int:
    """Write item_id and `content` of the items of a CSV or Parquet file as Parquet.

    Args:
        table: file of items.
        out: file to write.
        id_column: column of item ids.
        title: column of titles.
        tags: column of lists, or of text such as a|b|c; None: no tags.
        width: width of the vectors.

    Returns:
        The number of rows.

    Raises:
        BadInput: the file or a column does not exist, a column has the wrong type, or the width is
            below 1.
    """
    if width < 1:
        raise BadInput(f"width={width}; give at least 1")
    if not table.is_file():
        raise BadInput(f"{table}: no such file")
    batch = read_whole(table)
    frame = batch.frame
    for name in (id_column, title, *([tags] if tags else [])):
        if name not in frame.columns:
            raise BadInput(
                f"{table}: no column '{name}' (there are {', '.join(frame.columns)}); --id, "
                "--title and --tags name columns"
            )
    if frame[title].dtype != pl.String:
        raise BadInput(f"{table}, column '{title}': {frame[title].dtype} values are no titles")
    lists = pl.Series([[]] * len(frame), dtype=pl.List(pl.String))
    if tags:
        kind = frame[tags].dtype
        if kind not in (pl.String, pl.List(pl.String)):
            raise BadInput(
                f"{table}, column '{tags}': {kind} values are no tags; give text such as a|b|c, or "
                "lists of text"
            )
        lists = frame[tags].str.split("|") if kind == pl.String else frame[tags]
        lists = lists.list.eval(pl.element().filter(pl.element() != ""))
    ids = item_ids(frame[id_column], f"{table}, column '{id_column}'")
    vectors = fixed_size_lists(title_vectors(frame[title], lists, width))
    make_directory(out.parent)
    with atomic_path(out) as part:
        pq.write_table(pa.table({"item_id": ids, "content": vectors}), part)
    return len(ids)


def _trigrams(words: pl.Series) -> list[str]:
    """Return the trigrams of words marked with ^ and $."""
    marked = [f"^{word}$" for word in words]
    return [word[i : i + 3] for word in marked for i in range(len(word) - 2)]


def _tf_idf(terms: pl.Series) -> sp.csr_array:
    """Return TF-IDF weights float32 [items, BUCKETS], with rows of length 1 or zeros."""
    terms = terms.fill_null([])
    row = np.repeat(np.arange(len(terms)), terms.list.len().to_numpy())
    flat = terms.filter(terms.list.len() > 0).explode(empty_as_null=False)
    bucket = (mix64(hash_strings(flat)) % np.uint64(BUCKETS)).astype(np.int64)
    counts = sp.csr_array((np.ones(len(row)), (row, bucket)), shape=(len(terms), BUCKETS))
    counts.sum_duplicates()
    df = np.bincount(counts.indices, minlength=BUCKETS)
    weighted = (counts * (np.log((1 + len(terms)) / (1 + df)) + 1)).tocsr()
    norm = np.sqrt(weighted.multiply(weighted).sum(axis=1))
    return (sp.diags_array(1 / np.maximum(norm, 1e-12)) @ weighted).astype(np.float32).tocsr()
