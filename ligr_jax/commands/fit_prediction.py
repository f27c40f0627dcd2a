"""The prediction of `ligr fit --at`, and what it is extrapolated from."""

import argparse
import logging
import math
from typing import Any

from ligr_jax.commands.fit_text import FittedLaw, percent
from ligr_jax.data.schema import BadInput
from ligr_jax.runs.numbers import number_of_cell
from ligr_jax.scaling.fit import FactorLaw, FormLaw, IsoFlop, Law, predict_run, preregister

_log = logging.getLogger(__name__)

REACH = 1.5  # decades beyond the runs from which a prediction is noted as an extrapolation


def predict_at(law: FittedLaw, args: argparse.Namespace) -> dict[str, Any]:
    """Return the prediction at `--at`, and write it to the file of `--register`.

    Raises:
        BadInput: `--at` is no point of the law, or the law predicts no single metric.
    """
    parsed = [number_of_cell(text) for text in args.at.split(",")]
    point = [value for value in parsed if value is not None and 0 < value < math.inf]
    if len(point) < len(parsed):
        raise BadInput(f"--at {args.at}: give C (or N,D for chinchilla) of the run to predict")
    metric = args.metric
    if args.family or isinstance(law, FactorLaw):
        raise BadInput("--at: a law of families or factors has several predictions; use --where")
    if isinstance(law, IsoFlop):
        if args.register:
            raise BadInput("--register: isoflop predicts a size, not a metric; use another form")
        if len(point) > 1:
            raise BadInput(f"--at {args.at}: an isoflop law takes one value, C")
        metric, (predicted, low, high) = f"best {args.n}", map(float, law.predict(point[0]))
    else:
        made = (
            preregister(args.register, law, point, metric)
            if args.register
            else predict_run(law, point)
        )
        predicted, low, high = made.predicted, made.low, made.high
    for line in _extrapolations(law, point):
        _log.warning(f"--at {args.at}: {line}")
    return {
        "metric": metric,
        "at": args.at,
        "point": point,
        "predicted": predicted,
        "low": low,
        "high": high,
        "confidence": law.confidence,
    }


def text_of_prediction(prediction: dict[str, Any]) -> str:
    """Return the line of a prediction."""
    span = "no interval"
    if not math.isnan(prediction["low"]):
        span = f"{percent(prediction['confidence'])} interval {{low:.5g}} to {{high:.5g}}"
    return ("predicted {metric} at {at}: {predicted:.5g}   " + span).format_map(prediction)


def _extrapolations(law: FittedLaw, point: list[float]) -> list[str]:
    """Return a note per scale that lies far outside the runs."""
    ranges: dict[str, tuple[float, float]] = {}
    if isinstance(law, FormLaw):
        ranges = {name: law.ranges[name] for name in law.inputs}
    elif isinstance(law, Law):
        ranges = {"compute": law.compute}
    elif isinstance(law, IsoFlop):
        ranges = {"compute": (law.budgets[0].compute, law.budgets[-1].compute)}
    notes = []
    for (name, (least, most)), value in zip(ranges.items(), point):
        at = math.log10(value)
        decades = max(at - math.log10(most), math.log10(least) - at)
        if decades > REACH:
            side = "above the largest" if value > most else "below the smallest"
            notes.append(
                f"{name} is {decades:.1f} decades {side} run's; the interval holds only if the law "
                "does"
            )
    return notes
