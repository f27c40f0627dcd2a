"""The table of runs with one property per fixed column; NumPy and Polars only.

Columns that the user chooses (metrics, compute axes, settings) are read with `numbers`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ligr_jax.runs.columns import is_config_column
from ligr_jax.runs.table import SEPARATOR, column, labels, shapes, varied

Array = NDArray[np.float64]
RUN_SECONDS = ("start_seconds", "seconds", "eval_seconds")  # their sum is the time of a run


@dataclass(frozen=True)
class RunTable:
    """Finished runs, one per row.

    Attributes:
        frame: The rows and columns of `Runs.table`.
    """

    frame: pl.DataFrame

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.frame)

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return self.frame.columns

    @property
    def settings(self) -> list[str]:
        """Names of the columns of configuration fields."""
        return [name for name in self.columns if is_config_column(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each run."""
        return tuple(self.frame["run"])

    @property
    def first_sweeps(self) -> tuple[str, ...]:
        """The first sweep that contains each run."""
        return tuple(self.frame["sweep"])

    @property
    def sweeps(self) -> tuple[tuple[str, ...], ...]:
        """All sweeps that contain each run."""
        return tuple(tuple(names.split(SEPARATOR)) for names in self.frame["sweeps"])

    @property
    def named_architectures(self) -> tuple[str, ...] | None:
        """Architecture of each run as the table names it; None without that column."""
        return tuple(map(str, self.frame["architecture"])) if self.has("architecture") else None

    @property
    def beats_oracle(self) -> NDArray[np.bool_]:
        """Whether each run beats the oracle, bool [runs]; runs without an oracle do not."""
        return self._flag("beats_oracle")

    @property
    def leaks(self) -> NDArray[np.bool_]:
        """Whether labels leak into each run, bool [runs]: it beats the oracle, or its training
        shows actions that serving does not know (`ligr_jax.config.leaks`)."""
        return self.beats_oracle | self._flag("leaks")

    @property
    def not_split_by_time(self) -> NDArray[np.bool_]:
        """Whether the splits of each run are parts of each member's history, bool [runs]."""
        return self._flag("not_split_by_time")

    def _flag(self, name: str) -> NDArray[np.bool_]:
        if not self.has(name):
            return np.zeros(len(self), bool)
        return self.frame[name].cast(pl.Boolean).fill_null(False).to_numpy()

    @property
    def device_kinds(self) -> tuple[str, ...]:
        """Sorted kinds of the devices on which the runs were trained, without duplicates."""
        if not self.has("device"):
            return ()
        return tuple(map(str, self.frame["device"].drop_nulls().unique().sort()))

    @property
    def flops_model(self) -> Array:
        """Counted training FLOPs of each run, [runs]."""
        return self.numbers("flops_model")

    @property
    def estimated_seconds(self) -> Array | None:
        """Estimated seconds of each run before its start, [runs]; None if no sweep has them."""
        return self.numbers("estimate/seconds") if self.has("estimate/seconds") else None

    @property
    def actual_seconds(self) -> Array | None:
        """Seconds of each run with compilation and evaluation, [runs]; None if not recorded."""
        if not all(map(self.has, RUN_SECONDS)):
            return None
        total: Array = np.sum([self.numbers(part) for part in RUN_SECONDS], axis=0)
        return total

    def oracle(self, metric: str) -> Array | None:
        """Return the oracle's value of a metric for each run, [runs]; None if it is unknown."""
        name = f"oracle/{metric}"
        return self.numbers(name) if self.has(name) else None

    def has(self, name: str) -> bool:
        """Return whether there is a column of this name."""
        return name in self.frame.columns

    def numbers(self, name: str) -> Array:
        """Return a numeric column, [runs], with NaN for null.

        Raises:
            BadInput: There is no such column, or the column is not numeric.
        """
        return column(self.frame, name)

    def is_numeric(self, name: str) -> bool:
        """Return whether the values of a column are numbers."""
        return self.frame[name].dtype.is_numeric()

    def is_complete(self, name: str) -> bool:
        """Return whether every run has a value of a column."""
        return self.frame[name].null_count() == 0

    def distinct(self, name: str) -> int:
        """Return the number of distinct values of a column; null counts as a value."""
        return self.frame[name].n_unique()

    def varied(self) -> list[str]:
        """Return the settings that differ between runs, without seeds, names and paths."""
        return varied(self.frame)

    def shapes(self) -> list[str]:
        """Return a label per run, which is equal for runs that differ only in their seed."""
        return shapes(self.frame)

    def labels(self, columns: Sequence[str]) -> list[str]:
        """Return a label per run, which is equal for runs with equal values in all `columns`."""
        return labels(self.frame, columns)

    def where(self, mask: NDArray[np.bool_]) -> "RunTable":
        """Return the runs for which `mask`, bool [runs], is true."""
        return RunTable(self.frame.filter(mask))

    def where_text(self, name: str, text: str) -> "RunTable":
        """Return the runs whose value of a column, as text, is `text`; null is ""."""
        return RunTable(self.frame.filter(pl.col(name).cast(pl.String).fill_null("") == text))

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "RunTable":
        """Return the runs with these row numbers, in this order."""
        return RunTable(self.frame[rows])

    def by_sweep(self) -> list["RunTable"]:
        """Return the runs of each first sweep, in the order of the table."""
        return [RunTable(f) for f in self.frame.partition_by("sweep", maintain_order=True)]

    def with_device_seconds(self) -> "RunTable":
        """Add the column `device_seconds`, seconds times devices (default 1), if it is absent."""
        if not self.has("seconds") or self.has("device_seconds"):
            return self
        devices = self.numbers("devices") if self.has("devices") else np.ones(len(self))
        product = self.numbers("seconds") * devices
        return RunTable(self.frame.with_columns(device_seconds=product))

    def sort(self, name: str) -> "RunTable":
        """Return the runs in increasing order of a column."""
        return RunTable(self.frame.sort(name))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield each run as a dictionary from columns to values."""
        return self.frame.iter_rows(named=True)
