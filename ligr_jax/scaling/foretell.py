"""The prediction of a sweep's largest run, written down before that run starts."""

import json
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
_SAME = 0.98  # share of the largest budget above which a point is of that budget


def foretell(points: Sequence[Point], out: Path, say: Callable[[str], None]) -> None:
    """Writes OUT/prediction.json for the largest point from the finished ones of its sweeps.

    Other seeds of their shapes count too. Nothing is written where one is there already, where
    several shapes share the largest budget (then no law in compute foretells one of them), or where
    the finished runs allow no law; the reason is said.
    """
    largest = max(points, key=lambda p: p.cost.flops)
    rivals = {_shape(p) for p in points if p.cost.flops > _SAME * largest.cost.flops}
    if (out / PREDICTION).exists() or len(rivals) > 1:
        return
    ladder = {_shape(p) for p in points if set(p.sweeps) & set(largest.sweeps)} - rivals
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


def _shape(point: Point) -> str:
    """Equal for points that differ in their seed alone."""
    config = point.config
    return digest(replace(config, train=replace(config.train, seed=0)))


def _summary(directory: Path) -> dict[str, Any]:
    path = directory / "summary.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
