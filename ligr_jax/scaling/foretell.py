"""The prediction of a sweep's largest run, written down before that run starts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ligr_jax.config import digest
from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import budgets, fit_power
from ligr_jax.scaling.fit.registered import register
from ligr_jax.scaling.sweep import Point
from ligr_jax.train.run import load_summary

PREDICTION = "prediction.json"
_FEWEST = 4  # budgets beside the largest


def largest_of_ladder(points: Sequence[Point]) -> Point | None:
    """The run worth foretelling: the largest of the sweep in which most grows over most compute.

    None where no sweep grows in two dimensions at least, over budgets enough for a law.
    """
    found: dict[float, Point] = {}  # by how much compute the sweep spans
    for sweep in dict.fromkeys(name for p in points for name in p.sweeps):
        rungs = sorted((p for p in points if sweep in p.sweeps), key=lambda p: p.cost.flops)
        of = budgets([p.cost.flops for p in rungs])
        at_top = {_shape(p) for p, budget in zip(rungs, of) if budget == of.max()}
        growing = sum(len(set(sizes)) > 1 for sizes in zip(*map(_sizes, rungs)))
        if growing > 1 and len(at_top) == 1 and of.max() >= _FEWEST:
            found[rungs[-1].cost.flops / rungs[0].cost.flops] = rungs[-1]
    return found[max(found)] if found else None


def foretell(
    largest: Point, points: Sequence[Point], out: Path, say: Callable[[str], None]
) -> None:
    """Writes OUT/prediction.json for the largest point of a ladder from the finished other rungs.

    Other seeds of their shapes count too. Nothing is written where a prediction is there already,
    where the run has begun, or where the finished runs allow no law; the reason is said.
    """
    if (out / PREDICTION).exists():
        return
    if (out / largest.name / "metrics.jsonl").exists():
        say("no prediction of the largest run: it has begun")
        return
    ladder = {_shape(p) for p in points if set(p.sweeps) & set(largest.sweeps)} - {_shape(largest)}
    found = [(p, load_summary(out / p.name) or {}) for p in points if _shape(p) in ladder]
    sound = [(p, s) for p, s in found if not s.get("beats_oracle")]
    used = [(p, s) for p, s in sound if s.get("validation/ne") and s.get("flops_model")]
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
