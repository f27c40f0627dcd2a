"""A prediction written down before the run that tests it, and its score afterwards."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ligr_jax.atomic import write_atomically
from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit.bootstrap import Array
from ligr_jax.scaling.fit.holdout import FLOPS_PER, LeftOut
from ligr_jax.scaling.fit.law import Law, plain
from ligr_jax.scaling.fit.surface import SurfaceLaw


def register(
    path: str | Path,
    law: Law | SurfaceLaw,
    point: float | Sequence[float],
    metric: str,
    *,
    run: str = "",
) -> LeftOut:
    """Writes what `law` predicts of `metric` for a further run at `point`, with its interval.

    point: FLOPs, for a law in compute; (n, d) or (n, d, unique) for a surface. run: its name.
    The file also holds the law (version, parameters, objective, runs used) and the time in UTC.
    Returns the prediction, whose observed value is NaN as yet.
    Raises BadInput where the file exists: a prediction that can be rewritten predicts nothing.
    """
    path = Path(path)
    if path.exists():
        raise BadInput(f"{path}: a prediction is registered there already; give another name")
    where = [float(v) for v in (point if isinstance(point, Sequence) else (point,))]
    wanted = (2, 3) if isinstance(law, SurfaceLaw) else (1,)
    if len(where) not in wanted:
        raise BadInput(f"point {where} has {len(where)} values; a {law.form} law takes {wanted}")
    compute = where[0] if len(where) == 1 else FLOPS_PER * where[0] * where[1]
    predict: Callable[..., tuple[Array, Array, Array]] = law.predict
    value, low, high = (float(v) for v in predict(*where, run_noise=True))
    numbers = {
        "run": run,
        "metric": metric,
        "point": where,
        "compute": compute,
        "predicted": value,
        "low": low,
        "high": high,
        "confidence": law.confidence,
        "registered": datetime.now(UTC).isoformat(timespec="seconds"),
        "law": law.to_json(),
    }
    write_atomically(path, json.dumps(plain(numbers), indent=1) + "\n")
    return LeftOut(run, compute, float("nan"), value, low, high)


def score(path: str | Path, observed: float) -> LeftOut:
    """The registered prediction against what the run gave.

    Raises BadInput for a file that is no registered prediction.
    """
    try:
        found = json.loads(Path(path).read_text())
        spans = [float("nan") if found[k] is None else float(found[k]) for k in ("low", "high")]
        return LeftOut(
            str(found["run"]), float(found["compute"]), observed, float(found["predicted"]), *spans
        )
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BadInput(f"{path}: not a registered prediction ({e!r})") from e
