"""Random effects on top of a model's logits, refitted every day (LiRank 3.9).

For a day, the effects of videos, authors or surfaces are fitted to the labels of all earlier days,
with the logits of the model as offset; the model does not change. Impressions without times count
as of the day before the log. Levels are fitted one after the other, each on the result of the one
before.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.kuairand.data import Rows
from lib.kuairand.judge import CHOICE, REPORT, SHOWN, Scores, value_on_choice
from ligr_jax.train.random_effect import fit


@dataclass(frozen=True)
class Effects:
    """levels: columns and precisions; half_life: days after which an impression counts half."""

    levels: tuple[tuple[str, float], ...]
    half_life: float = np.inf

    def __str__(self) -> str:
        levels = ", ".join(f"{name} {precision:g}" for name, precision in self.levels) or "none"
        return levels if np.isinf(self.half_life) else f"{levels}; half-life {self.half_life:g} d"


# The 19 settings that are tried for each action.
TRIES = (
    Effects(()),
    *(
        Effects((*first, (level, precision)), half_life)
        for first in ((), (("surface", 10.0),))
        for level, precision, half_life in itertools.chain(
            itertools.product(("actor_id",), (5.0, 15.0, 40.0), (3.0, np.inf)),
            itertools.product(("item_id",), (5.0, 15.0, 40.0), (np.inf,)),
        )
    ),
)


def refitted(
    rows: Rows,
    action: str,
    logits: np.ndarray,
    effects: Effects,
    splits: Sequence[str] = (CHOICE, REPORT),
) -> np.ndarray:
    """Return the logits of days with the effects of earlier days, [rows]; NaN elsewhere.

    Args:
        rows: all impressions.
        action: the action.
        logits: logits of the model, [rows], NaN where it has none.
        effects: the effects.
        splits: the days.
    """
    out = np.full(len(logits), np.nan)
    label = rows.labels[action]
    days = np.where(rows.day < 0, rows.day[rows.day >= 0].min() - 1, rows.day)
    for split in splits:
        now = np.flatnonzero(rows.splits[split])
        earlier = np.flatnonzero((days < days[now].min()) & ~np.isnan(logits) & (label >= 0))
        weight = 0.5 ** ((days[now].min() - 1 - days[earlier]) / effects.half_life)
        z, of_now = logits[earlier].astype(np.float64), logits[now].astype(np.float64)
        for level, precision in effects.levels:
            ids = rows.columns[level]
            fitted = fit(z[:, None], label[earlier, None], ids[earlier], precision, weight)
            z += fitted.of(ids[earlier])[:, 0]
            of_now += fitted.of(ids[now])[:, 0]
        out[now] = of_now
    return out


def with_effects(
    rows: Rows, runs: Sequence[Scores], tries: Sequence[Effects] = TRIES
) -> tuple[list[dict[str, np.ndarray]], dict[str, Effects]]:
    """Return each run with the effects that are best for its actions, and these effects.

    One choice per action, on 5 May, for all runs.
    """
    out: list[dict[str, np.ndarray]] = [{} for _ in runs]
    chosen: dict[str, Effects] = {}
    for action in SHOWN:
        values = {
            e: value_on_choice(
                rows, action, [refitted(rows, action, run[action], e, (CHOICE,)) for run in runs]
            )
            for e in tries
        }
        chosen[action] = max(values, key=values.__getitem__)
        for scores, run in zip(out, runs):
            scores[action] = refitted(rows, action, run[action], chosen[action])
    return out, chosen
