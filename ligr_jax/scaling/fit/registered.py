"""Preregistered predictions: written to a file before the run starts, scored after it finishes."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ligr_jax.data.schema import BadInput
from ligr_jax.digests import DamagedFile, read_json, write_json
from ligr_jax.scaling.fit.bootstrap import Array
from ligr_jax.scaling.fit.form_law import FormLaw
from ligr_jax.scaling.fit.holdout import FLOPS_PER, LeftOut
from ligr_jax.scaling.fit.law import Law
from ligr_jax.strict_json import nan_to_null


def predict_run(law: Law | FormLaw, point: float | Sequence[float], *, run: str = "") -> LeftOut:
    """Return the law's prediction for a future run, with the interval for one further run.

    Args:
        law: fitted law.
        point: FLOPs of the future run for a law in compute; (n, d) or (n, d, unique) for a surface.
        run: name of the future run.

    Returns:
        The prediction; its observed value is NaN. Low and high are NaN without resamples, or if the
        interval of the resamples excludes the prediction.

    Raises:
        BadInput: `point` has the wrong number of values.
    """
    scales = _scales(point)
    valid_lengths: tuple[int, ...] = (1,)
    if isinstance(law, FormLaw):  # `unique` is `d` where it is not given
        valid_lengths = tuple(sorted({len(law.inputs), len(set(law.inputs) - {"unique"})}))
    if len(scales) not in valid_lengths:
        raise BadInput(
            f"point {scales} has {len(scales)} values; a {law.form} law takes {valid_lengths}"
        )
    compute = scales[0] if len(scales) == 1 else FLOPS_PER * scales[0] * scales[1]
    predict: Callable[..., tuple[Array, Array, Array]] = law.predict
    value, low, high = (float(v) for v in predict(*scales, run_noise=True))
    return LeftOut(
        run=run, compute=compute, observed=float("nan"), predicted=value, low=low, high=high
    )


def preregister(
    path: str | Path,
    law: Law | FormLaw,
    point: float | Sequence[float],
    metric: str,
    *,
    run: str = "",
) -> LeftOut:
    """Write the law's prediction of `metric` for a future run, with its interval, as JSON.

    The file also contains the law (version, parameters, objective, runs used) and the time in UTC.

    Args:
        path: file to write; it must not exist, because a prediction that can be overwritten after
            the run proves nothing.
        law: fitted law.
        point: as in `predict_run`.
        metric: name of the metric.
        run: name of the future run.

    Returns:
        The prediction, as of `predict_run`.

    Raises:
        BadInput: the file exists, or `point` has the wrong number of values.
    """
    path = Path(path)
    if path.exists():
        raise BadInput(f"{path}: a prediction is already registered there; give another name")
    prediction = predict_run(law, point, run=run)
    numbers = {
        "run": run,
        "metric": metric,
        "point": _scales(point),
        "compute": prediction.compute,
        "predicted": prediction.predicted,
        "low": prediction.low,
        "high": prediction.high,
        "confidence": law.confidence,
        "registered": datetime.now(UTC).isoformat(timespec="seconds"),
        "law": law.to_json(),
    }
    write_json(path, nan_to_null(numbers))
    return prediction


def _scales(point: float | Sequence[float]) -> list[float]:
    return [float(v) for v in (point if isinstance(point, Sequence) else (point,))]


def read_registered(path: Path) -> dict[str, Any]:
    """Read a file written by `preregister`.

    Raises:
        BadInput: the file is not what was written.
    """
    try:
        return read_json(
            path, "restore it from a copy or remove it: a prediction cannot be made after its run"
        )
    except DamagedFile as e:
        raise BadInput(f"{path}: not a registered prediction ({e})") from e


def score(path: str | Path, observed: float) -> LeftOut:
    """Compare a registered prediction with the metric that the run reached.

    Args:
        path: file written by `preregister`.
        observed: metric of the finished run.

    Returns:
        The prediction with its outcome.

    Raises:
        BadInput: the file is missing or is not a registered prediction.
    """
    try:
        written = read_registered(Path(path))
        # A law without resamples has no interval: it is NaN in memory and null in JSON.
        low, high = (
            float("nan") if written[k] is None else float(written[k]) for k in ("low", "high")
        )
        return LeftOut(
            run=str(written["run"]),
            compute=float(written["compute"]),
            observed=observed,
            predicted=float(written["predicted"]),
            low=low,
            high=high,
        )
    except BadInput:
        raise
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BadInput(f"{path}: not a registered prediction ({e!r})") from e
