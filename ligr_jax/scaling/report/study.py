"""Everything a report says, computed once, before it is drawn or worded.

Runs suspected of a leak (`beats_oracle`) and diverged runs are shown and never fitted.
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import Comparison, IsoFlop, Law, Noise
from ligr_jax.scaling.report.arms import architectures, subset
from ligr_jax.scaling.report.budgets import Grid, iso_flop
from ligr_jax.scaling.report.contrasts import comparisons, noise
from ligr_jax.scaling.report.dimensions import Gains, gains
from ligr_jax.scaling.report.forecasts import Forecast, left_out, registered
from ligr_jax.scaling.report.laws import Laws, auc_columns, fit_laws, ladder
from ligr_jax.scaling.runs import Runs, column

AXES = {  # flops_6nd is six times flops_paper: the same picture
    "flops_model": "training FLOPs, counted (flops_model)",
    "flops_paper": "dense parameters × tokens (flops_paper)",
    "device_seconds": "seconds × devices (device_seconds)",
}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """What was found. `table` holds the runs that were fitted; arms: the architecture of each.

    ladder: places of the runs that laws in compute are fitted to.
    laws and gains are by compute axis (gains then by architecture); `axis` is the main one.
    iso: by architecture, the runs of budgets times sizes and the power law of their minima.
    """

    runs: Runs
    table: pl.DataFrame
    arms: tuple[str, ...]
    metric: str
    axes: tuple[str, ...]
    aucs: tuple[str, ...]
    oracle: float | None
    suspect: tuple[str, ...]
    diverged: tuple[str, ...]
    notes: tuple[str, ...]
    ladder: tuple[int, ...]
    laws: dict[str, Laws]
    gains: dict[str, dict[str, Gains]]
    forecasts: tuple[Forecast, ...]
    iso: dict[str, tuple[Grid, IsoFlop]]
    noise: Noise | None
    comparisons: tuple[Comparison, ...]

    @property
    def axis(self) -> str:
        return self.axes[0]

    @property
    def split(self) -> str:
        return self.metric.split("/")[0]

    @property
    def leader(self) -> str:
        """The architecture of the best run."""
        return self.arms[int(np.argmin(column(self.table, self.metric)))] if self.arms else ""

    @property
    def order(self) -> tuple[str, ...]:
        """Architectures, the leader first."""
        return tuple(dict.fromkeys((self.leader, *self.arms)))

    @property
    def law(self) -> Law | None:
        """The leader's law on the main axis, its floor free."""
        return self.laws[self.axis].power.get(self.leader, {}).get("free") if self.laws else None


def study(runs: Runs, resamples: int = 1000) -> Study:
    """Fits all that the runs allow. Raises BadInput without finished runs, NE or compute."""
    if runs.table.is_empty():
        raise BadInput(
            f"{runs.name}: no finished runs ({len(runs.unfinished)} unfinished, "
            f"{len(runs.failed)} failed)"
        )
    runs = replace(runs, table=_with_device_seconds(runs.table))
    table = runs.table
    metric = "validation/ne"
    if metric not in table.columns and "test/ne" in table.columns:
        metric = "test/ne"
    leaks = np.zeros(len(table), bool)
    if "beats_oracle" in table.columns:
        leaks = table["beats_oracle"].cast(pl.Boolean).fill_null(False).to_numpy()
    lost = ~np.isfinite(column(table, metric)) & ~leaks
    kept = table.filter(~(leaks | lost))
    oracle, notes = _oracle(kept, metric)
    notes += _mixed_devices(kept)
    axes = [a for a in AXES if a in table.columns and (np.nan_to_num(column(table, a)) > 0).any()]
    if not axes:
        raise BadInput(f"{runs.name}: the runs have none of the compute columns {', '.join(AXES)}")
    arms = architectures(kept)
    aucs = auc_columns(kept, metric.split("/")[0])
    names = table["run"].to_numpy()
    rows = ladder(kept, arms, axes[0])
    rungs, of = kept[rows], [arms[i] for i in rows]
    compared, on_arms = comparisons(rungs, of, metric, axes[0], resamples)
    scatter, on_noise = noise(kept, metric)
    iso, on_iso = iso_flop(kept, arms, metric, axes[0], resamples)
    return Study(
        runs=runs,
        table=kept,
        arms=tuple(arms),
        metric=metric,
        axes=tuple(axes),
        aucs=tuple(aucs),
        oracle=oracle,
        suspect=tuple(names[leaks]),
        diverged=tuple(names[lost]),
        notes=tuple(dict.fromkeys((*notes, *on_iso, *on_arms, *on_noise))),
        ladder=tuple(rows),
        laws={a: fit_laws(rungs, of, metric, a, aucs, oracle, resamples) for a in axes},
        gains={
            a: {
                arm: gains(subset(kept, arms, arm, a), metric, a, resamples)
                for arm in dict.fromkeys(arms)
            }
            for a in axes
        },
        forecasts=(
            *left_out(rungs, of, metric, axes[0], resamples),
            *registered(runs, metric),
        ),
        iso=iso,
        noise=scatter,
        comparisons=tuple(compared),
    )


def _with_device_seconds(table: pl.DataFrame) -> pl.DataFrame:
    if "seconds" not in table.columns or "device_seconds" in table.columns:
        return table
    devices = column(table, "devices") if "devices" in table.columns else np.ones(len(table))
    return table.with_columns(device_seconds=column(table, "seconds") * devices)


def _oracle(table: pl.DataFrame, metric: str) -> tuple[float | None, list[str]]:
    """The oracle's value of the metric, and a note where runs were evaluated on different sets."""
    if f"oracle/{metric}" not in table.columns:
        return None, []
    values = column(table, f"oracle/{metric}")
    values = values[np.isfinite(values)]
    if not len(values):
        return None, []
    notes = []
    if np.ptp(values) > 1e-4 * abs(values.mean()):
        notes.append(
            f"The oracle's {metric} differs between runs ({values.min():.4f} to "
            f"{values.max():.4f}): they were not evaluated on one set and compare poorly."
        )
    return float(np.median(values)), notes


def _mixed_devices(table: pl.DataFrame) -> list[str]:
    kinds = table["device"].drop_nulls().unique().sort().to_list() if "device" in table else []
    if len(kinds) < 2:
        return []
    return [f"device_seconds mixes {', '.join(map(str, kinds))}: that axis does not compare them."]
