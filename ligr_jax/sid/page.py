"""A self-contained HTML page of clusters of items that share a prefix of their codes."""

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.atomic import make_directory, write_atomically
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.files import read_whole
from ligr_jax.sid.corpus import item_ids
from ligr_jax.sid.measure import Measured
from ligr_jax.sid.model import SidModel

MOST_ITEMS = 20_000  # items on the page; with more, only the first of each cluster are shown
LONGEST = 120  # characters of a cell
COMMON = 3  # largest number of values that describe a cluster
RARE = 0.2  # least share of a cluster's items that such a value needs
SAMPLE = 1000  # items of a cluster in which values are counted


def write_page(
    out: Path, model: SidModel, found: Measured, source: str, columns: pl.DataFrame | None = None
) -> None:
    """Write the page: measures, use of each level's codes, and the clusters of the first level.

    Args:
        out: file to write.
        model: the model.
        found: measured codes.
        source: name of the source, shown on the page.
        columns: text columns to show, one row per item of `found.ids`.
    """
    config = model.config
    columns = pl.DataFrame() if columns is None else columns
    order = np.lexsort(found.codes.T[::-1])
    clusters = [_cluster(found, columns, rows) for rows in _by_first_code(found.codes, order)]
    shown = len(order) if len(order) <= MOST_ITEMS else max(8, MOST_ITEMS // len(clusters))
    cells = [columns[name].str.slice(0, LONGEST).to_list() for name in columns.columns]
    items = [
        # Ids as text: JavaScript's numbers end at 2^53.
        [str(found.ids[row]), *map(int, found.codes[row]), *(cell[row] for cell in cells)]
        for cluster in clusters
        for row in cluster["rows"][:shown]
    ]
    data = {
        "levels": config.levels,
        "columns": columns.columns,
        "clusters": [{k: v for k, v in c.items() if k != "rows"} for c in clusters],
        "items": items,
    }
    resources = files("ligr_jax.sid")
    page = Template((resources / "page.html").read_text("utf-8")).substitute(
        subtitle=escape(
            f"{source}: {config.levels} levels of {config.codes:,} codes by {config.method}, "
            f"model {model.digest}"
        ),
        style=(resources / "page.css").read_text("utf-8"),
        script=(resources / "page.js").read_text("utf-8"),
        answer="".join(f"<li>{escape(line)}</li>" for line in found.quality.lines()),
        levels="".join(
            _level(column, i, found, config.codes) for i, column in enumerate(found.codes.T)
        ),
        note=(
            f"Only the first {shown:,} items of each cluster are shown: {len(items):,} of "
            f"{len(order):,}."
            if len(items) < len(order)
            else ""
        ),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    )
    make_directory(out.parent)
    write_atomically(out, page)


def read_item_texts(path: Path, id_column: str, ids: np.ndarray) -> pl.DataFrame:
    """Read columns of a CSV or Parquet file as text.

    Args:
        path: file.
        id_column: column of item ids.
        ids: items to return.

    Returns:
        One row per item of `ids`; empty text for items that the file lacks.

    Raises:
        BadInput: the file or the column does not exist.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    batch = read_whole(path)
    if id_column not in batch.frame.columns:
        raise BadInput(
            f"{path}: no column '{id_column}' (there are {', '.join(batch.frame.columns)}); "
            "--id names the column of item ids"
        )
    known = item_ids(batch.frame[id_column], f"{path}, column '{id_column}'")
    nested = [n for n, kind in batch.frame.schema.items() if kind.is_nested()]
    frame = batch.frame.drop(id_column, *nested).cast(pl.String)
    there = frame.with_columns(pl.Series("", known)).unique("", keep="first")
    wanted = pl.DataFrame({"": ids})
    return wanted.join(there, on="", how="left", maintain_order="left").drop("").fill_null("")


def _by_first_code(codes: np.ndarray, order: np.ndarray) -> Sequence[np.ndarray]:
    """Return the rows of each first code, sorted by tuple; the largest cluster first."""
    first = codes[order, 0]
    clusters = np.split(order, np.flatnonzero(np.diff(first)) + 1)
    return sorted(clusters, key=len, reverse=True)


def _cluster(found: Measured, columns: pl.DataFrame, rows: np.ndarray) -> dict[str, Any]:
    """Return the code of a cluster, its size, and the values that most of its items share."""
    values: Counter[str] = Counter()
    some = rows[:: -(-len(rows) // SAMPLE)]
    for name in columns.columns:
        for cell in columns[name].gather(some):
            values.update({_named(name, value) for value in cell.split("|") if value})
    common = [(text, count / len(some)) for text, count in values.most_common(COMMON)]
    return {
        "code": int(found.codes[rows[0], 0]),
        "size": len(rows),
        "common": [f"{text} {share:.0%}" for text, share in common if share >= RARE],
        "rows": rows,
    }


def _named(column: str, value: str) -> str:
    """Return the value, with its column if it is a number."""
    return f"{column}={value}" if value.lstrip("-").replace(".", "", 1).isdigit() else value


def _level(codes: np.ndarray, level: int, found: Measured, k: int) -> str:
    """Return the figure of a level: items per code, largest first, and the line of even use."""
    counts = np.sort(np.bincount(codes, minlength=k))[::-1]
    caption = (
        f"Level {level + 1}: {found.quality.used[level]:.1%} of codes used, perplexity "
        f"{found.quality.perplexity[level]:.0f} of {k:,}. The most used code has "
        f"{counts[0] / counts.sum():.1%} of items; even use is {1 / k:.2%}."
    )
    return f"<figure>{_profile(counts)}<figcaption>{escape(caption)}</figcaption></figure>"


def _profile(counts: np.ndarray) -> str:
    """Return an SVG of decreasing counts as a staircase, with a line at the mean."""
    width, height = 300, 90
    at = np.arange(len(counts)) / len(counts) * width
    tall = counts / counts[0] * height
    steps = " ".join(f"H{x:.1f}V{height - y:.1f}" for x, y in zip(at, tall))
    even = height - np.mean(tall)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="items of each code">'
        f'<path class="bars" d="M0 {height}{steps}H{width}V{height}Z"/>'
        f'<path class="even" d="M0 {even:.1f}H{width}"/></svg>'
    )
