"""The prediction of a sweep's largest run, written down before that run starts."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ligr_jax.config import digest
from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import fit_power
from ligr_jax.scaling.fit.registered import register
from ligr_jax.scaling.sweep import Point

PREDICTION = "prediction.json"
_FEWEST = 4  # budgets beside the largest
_SAME = 0.98  # share of the largest budget above which a point is of that budget


def largest_of_ladder(points: Sequence[Point]) -> Point | None:
    """The run worth foretelling: the largest of the sweep in which most grows over most compute.

    None where no sweep grows in two dimensions at least, over budgets enough for a law.
    """
    found: tuple[float, Point] | None = None
    for sweep in dict.fromkeys(name for p in points for name in p.sweeps):
        rungs = sorted((p for p in points if sweep in p.sweeps), key=lambda p: p.cost.flops)
        sizes = [{_sizes(p)[i] for p in rungs} for i in range(len(_sizes(rungs[0])))]
        alone = {_shape(p) for p in rungs if p.cost.flops > _SAME * rungs[-1].cost.flops}
        budgets = {round(math.log(p.cost.flops) / 0.02) for p in rungs}
        span = rungs[-1].cost.flops / rungs[0].cost.flops
        together = sum(len(values) > 1 for values in sizes) > 1
        if (
            together
            and len(alone) == 1
            and len(budgets) > _FEWEST
            and (not found or span > found[0])
        ):
            found = span, rungs[-1]
    return found[1] if found else None


def foretell(
    largest: Point, points: Sequence[Point], out: Path, say: Callable[[str], None]
) -> None:
    """Writes OUT/prediction.json for the largest point of a ladder from the finished other rungs.

    Other seeds of their shapes count too. Nothing is written where a prediction is there already,
    or where the finished runs allow no law; the reason is said.
    """
    if (out / PREDICTION).exists():
        return
    ladder = {_shape(p) for p in points if set(p.sweeps) & set(largest.sweeps)} - {_shape(largest)}
    found = [(p, _summary(out / p.name)) for p in points if _shape(p) in ladder]
    used = [(p, s) for p, s in found if s.get("validation/ne") and s.get("flops_model")]
    try:
        law = fit_power(
            [s["flops_model"] for _, s in used],
            [s["validation/ne"] for _, s in used],
            runs=[p.name for p, _ in used],
            groups=[_shape(p) for p, _ in used],
        )
        said = register(
            out / PREDICTION, law, largest.cost.flops, "validation/ne", run=largest.name
        )
    except BadInput as e:
        say(f"no prediction of the largest run: {e}")
        return
    say(
        f"foretold before it starts: the largest run will have validation NE {said.predicted:.4f}, "
        f"{law.confidence:.0%} interval {said.low:.4f} to {said.high:.4f} ({law.points} runs)"
    )


def _sizes(point: Point) -> tuple[int, ...]:
    model = point.config.model
    return point.config.data.seq_len, model.depth, model.width


def _shape(point: Point) -> str:
    """Equal for points that differ in their seed alone."""
    config = point.config
    return digest(replace(config, train=replace(config.train, seed=0)))


def _summary(directory: Path) -> dict[str, Any]:
    path = directory / "summary.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
