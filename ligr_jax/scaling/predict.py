"""Prediction of the largest run of each ladder, written to a file before that run starts."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ligr_jax.config import digest, flatten
from ligr_jax.data.schema import BadInput
from ligr_jax.runs.directory import summary_or_none
from ligr_jax.runs.files import RunFiles
from ligr_jax.scaling.fit import budgets, fit_power
from ligr_jax.scaling.fit.registered import preregister
from ligr_jax.scaling.sweep import ResolvedPoint

_log = logging.getLogger(__name__)

PREDICTION = "prediction.json"
P = TypeVar("P", bound=ResolvedPoint)

_FEWEST = 4  # budgets a ladder needs in addition to the largest one


def largest_of_ladders(points: Sequence[P], flops_of: Callable[[P], float]) -> dict[str, P]:
    """Return the largest run of a ladder of each architecture, by the file of its prediction.

    Points of one architecture have equal non-numeric settings of the model.

    Args:
        points: points of one or more sweeps.
        flops_of: function from a point to its FLOPs, called for points of ladders only.

    Returns:
        `prediction.json` with its run, if one architecture has a ladder; `prediction-RUN.json` for
        each of several.
    """
    largest = []
    for architecture in dict.fromkeys(map(_architecture, points)):
        of_architecture = [p for p in points if _architecture(p) == architecture]
        found = largest_of_ladder(of_architecture, flops_of)
        if found is not None:
            largest.append(found)
    if len(largest) == 1:
        return {PREDICTION: largest[0]}
    return {PREDICTION.replace(".", f"-{p.name}."): p for p in largest}


def largest_of_ladder(points: Sequence[P], flops_of: Callable[[P], float]) -> P | None:
    """Return the largest run of the ladder that spans the largest range of compute.

    A ladder is a sweep in which at least two of seq_len, depth and width vary, with at least five
    budgets and a single shape at the largest one.

    Args:
        points: points of one architecture, of one or more sweeps.
        flops_of: function from a point to its FLOPs, called for points of ladders only.

    Returns:
        The run to predict; None if no sweep is a ladder.
    """
    by_span: dict[float, P] = {}  # ratio of the largest to the smallest compute
    for sweep in dict.fromkeys(name for p in points for name in p.sweeps):
        of_sweep = [p for p in points if sweep in p.sweeps]
        if sum(len(set(sizes)) > 1 for sizes in zip(*map(_sizes, of_sweep))) < 2:
            continue
        rungs = sorted(of_sweep, key=flops_of)
        flops = [flops_of(p) for p in rungs]
        index = budgets(flops)
        largest_shapes = {_shape(p) for p, budget in zip(rungs, index) if budget == index.max()}
        if len(largest_shapes) == 1 and index.max() >= _FEWEST:
            by_span[flops[-1] / flops[0]] = rungs[-1]
    return by_span[max(by_span)] if by_span else None


def other_rungs(largest: P, points: Sequence[P]) -> list[P]:
    """Return the points that predict the largest run of a ladder.

    These are the points of the ladder's other shapes, also those that another sweep repeats with
    other seeds. Other seeds of the largest shape would reveal the result.

    Args:
        largest: the run to predict, from `largest_of_ladder`.
        points: all points of the sweeps.
    """
    of_sweeps = [
        p
        for p in points
        if set(p.sweeps) & set(largest.sweeps) and _architecture(p) == _architecture(largest)
    ]
    ladder = {_shape(p) for p in of_sweeps} - {_shape(largest)}
    return [p for p in points if _shape(p) in ladder]


def with_its_seeds(largest: P, points: Sequence[P]) -> list[P]:
    """Return the points that differ from the largest run only in seed, itself included.

    Args:
        largest: the run to predict, from `largest_of_ladder`.
        points: all points of the sweeps.
    """
    return [p for p in points if _shape(p) == _shape(largest)]


def predict_largest(largest: P, points: Sequence[P], path: Path, flops: float) -> None:
    """Fit the finished rungs of a ladder and write the prediction of its largest run.

    No file is written if one exists, if the largest shape has started, or if the finished runs do
    not determine a law; the reason is logged.

    Args:
        largest: the run to predict, from `largest_of_ladders`.
        points: all points of the sweeps.
        path: file to write, in the directory of the sweeps' runs.
        flops: FLOPs of the largest run.
    """
    if path.exists():
        return
    out = path.parent
    if any(RunFiles(out / p.name).metrics.exists() for p in with_its_seeds(largest, points)):
        _log.info("no prediction of the largest run: it has started")
        return
    rungs = other_rungs(largest, points)
    summaries = [(p, summary_or_none(out / p.name) or {}) for p in rungs]
    # A run that beats the oracle has a leak; a run without NE has not finished.
    sound = [(p, s) for p, s in summaries if not (s.get("beats_oracle") or s.get("leaks"))]
    used = [(p, s) for p, s in sound if s.get("validation/ne") and s.get("flops_model")]
    try:
        law = fit_power(
            [s["flops_model"] for _, s in used],
            [s["validation/ne"] for _, s in used],
            runs=[p.name for p, _ in used],
            groups=[_shape(p) for p, _ in used],
        )
        prediction = preregister(path, law, flops, "validation/ne", run=largest.name)
    except BadInput as e:
        _log.info(f"no prediction of the largest run: {e}")
        return
    _log.info(
        f"predicted validation NE of the largest run (not yet started): "
        f"{prediction.predicted:.4f}, {law.confidence:.0%} interval {prediction.low:.4f} to "
        f"{prediction.high:.4f} ({law.points} runs)"
    )


def _sizes(point: ResolvedPoint) -> tuple[int, ...]:
    """Return the sizes that a ladder varies."""
    model = point.config.model
    return point.config.data.seq_len, model.depth, model.width


def _architecture(point: ResolvedPoint) -> tuple[tuple[str, object], ...]:
    """Return the non-numeric settings of a point's model; numeric ones are sizes."""
    settings = flatten(point.config.model)
    return tuple((name, value) for name, value in settings.items() if isinstance(value, str | bool))


def _shape(point: ResolvedPoint) -> str:
    """Return a digest of the configuration that is equal for points that differ only in seed."""
    config = point.config
    return digest(replace(config, train=replace(config.train, seed=0)))
