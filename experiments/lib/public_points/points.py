"""The tables of published points, and what all questions need of fits."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lib.results import Cell, interval
from ligr_jax.errors import LigrError
from ligr_jax.scaling.fit import CONFIDENCE

FILES = (
    "srt_runs",
    "srt_marks",
    "unirank_scaling",
    "unirank_metrics",
    "olmo_ladder",
    "gemstones",
    "onetrans",
    "hyformer",
)
NEGATIVES = 100  # of the loss of srt: a loss with 300 negatives is another loss
SEED = 0

Tables = Mapping[str, pl.DataFrame]


class Answer(NamedTuple):
    """The answer to a question.

    Attributes:
        question: one sentence.
        expected: answer that was expected before the fits.
        found: answer of the fits.
        agrees: whether the fits give the expected answer.
        figure: drawing of the answer; None if it has none.
        why: reason for the difference, if there is one.
    """

    question: str
    expected: str
    found: str
    agrees: bool
    figure: Figure | None = None
    why: str = ""


def read_points(directory: Path) -> dict[str, pl.DataFrame]:
    """Return the tables of points; of srt, the runs without exact repeats.

    Raises:
        SystemExit: a table is not in the directory.
    """
    missing = [name for name in FILES if not (directory / f"{name}.csv").exists()]
    if missing:
        raise SystemExit(
            f"{directory} has no {', '.join(f'{name}.csv' for name in missing)}: give the "
            "directory of the points; docs/public-points.md lists their sources and columns"
        )
    tables = {n: pl.read_csv(directory / f"{n}.csv", infer_schema_length=None) for n in FILES}
    for name in ("srt_runs", "srt_marks"):
        tables[name] = tables[name].filter(repeat=0)
    return tables


def by_size(table: pl.DataFrame, negatives: int = NEGATIVES) -> list[pl.DataFrame]:
    """Return the rows of srt with one number of negatives, a table per data size, smallest first.

    The data sizes are never in one table: the catalogue grows with them, and the loss with it.
    """
    rows = table.filter(negatives=negatives).sort("D")
    return rows.partition_by("D", maintain_order=True)


def fit_or_refusal(fit: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """Return the law of a fit, or a text if the fit refuses the rows."""
    try:
        return fit(*arrays, seed=SEED, **options)
    except LigrError as error:
        return f"refused, {str(error).partition(' in these rows')[0].partition(', so ')[0]}"


def parameter(law: Any, name: str) -> Cell:
    """Return the cell of a parameter with its interval; None for a refusal."""
    if isinstance(law, str):
        return None
    value = law.params[name]
    return interval(value, *law.intervals[name]) if name in law.intervals else value


def note(law: Any) -> str:
    """Return the refusal of a fit, or the first clause of each of its warnings."""
    if isinstance(law, str):
        return law
    return "; ".join(warning.partition(":")[0] for warning in law.warnings)


def is_clear(span: tuple[float, float]) -> bool:
    """Return whether an interval excludes zero."""
    return not span[0] <= 0 <= span[1]


def percentiles(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the interval that draws of a statistic, (R,), give."""
    low, high = np.percentile(draws, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)
