"""Golden requests: inputs with the scores that the artifact gave when it was written.

On the platform and with the versions of the export, scores are equal bit by bit. Elsewhere, sums
are rounded in another order, and scores may differ by `TOLERANCE`. This is a limit that we chose
for differences of rounding; it is not derived from the model.
"""

import hashlib
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ligr_jax.data.batch import Batch
from ligr_jax.data.positions import in_newest_session, positions_where, take_positions
from ligr_jax.serve.manifest import ArtifactError
from ligr_jax.serve.params import load_tree, save_tree
from ligr_jax.serve.request_scorer import RequestScorer

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}  # of a logit, by type of the activations


class Golden(NamedTuple):
    """Requests and their scores.

    Attributes:
        history: [B, N], impressions before the request.
        candidates: [B, C].
        scores: arrays by name.
    """

    history: Batch
    candidates: Batch
    scores: Mapping[str, np.ndarray]


class WrongScores(ArtifactError):
    """Scores of golden requests differ from those of the export."""


def write_golden(path: Path, golden: Golden) -> None:
    """Write golden requests."""
    save_tree(
        path,
        {
            "history": golden.history._asdict(),
            "candidates": golden.candidates._asdict(),
            "scores": golden.scores,
        },
    )


def read_golden(path: Path) -> Golden:
    """Read golden requests that `write_golden` wrote, from a file that is intact."""
    tree = load_tree(path)
    return Golden(
        history=_batch(tree["history"]),
        candidates=_batch(tree["candidates"]),
        scores=tree["scores"],
    )


def _batch(tree: Mapping[str, Any]) -> Batch:
    mappings = {name: tree.get(name, {}) for name in ("ids", "numeric", "vectors")}
    return Batch(**{**tree, **mappings})


def golden_scores(
    scorer: RequestScorer, history: Batch, candidates: Batch
) -> dict[str, np.ndarray]:
    """Return the scores of golden requests by every operation.

    Args:
        scorer: a `Scorer` or an `Artifact`.
        history: [B, N], impressions before the requests.
        candidates: [B, C].

    Returns:
        Logits `pointwise`, `ranked`, `session`, and `appended` (point-wise, with the newest session
        of the history appended to a cache), [B, C, A], and `score` [B, C]; zeros in padding. Models
        with a post feature also have `positions` [B, C, P A], point-wise at every row of it.
    """
    cache = scorer.encode(history)
    ranking = scorer.rank(cache, candidates)
    newest = in_newest_session(history)
    older = positions_where((history.member > 0) & ~newest)
    shorter = scorer.encode(take_positions(history, older, scorer.model))
    added = take_positions(history, positions_where(newest), scorer.model)
    logits: dict[str, Any] = {
        "pointwise": scorer.score(cache, candidates),
        "session": scorer.score_session(cache, candidates),
        "ranked": ranking.logits_BCA,
        "appended": scorer.score(scorer.append(shorter, added), candidates),
    }
    if scorer.model.post_feature:
        positions = scorer.score_positions(cache, candidates)
        logits["positions"] = positions.reshape(*positions.shape[:2], -1)
    valid = candidates.member > 0
    scores = {name: np.where(valid[..., None], np.asarray(x), 0) for name, x in logits.items()}
    return {**scores, "score": np.where(valid, ranking.score_BC, 0)}


def host_signature() -> dict[str, str]:
    """Return what must be equal for scores to be equal bit by bit."""
    device = jax.local_devices()[0]
    return {
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "device": f"{device.platform} {device.device_kind}",
        "host": f"{platform.machine()} {_cpu_features()} {os.cpu_count()}",
    }


def _cpu_features() -> str:
    """Return a digest of the instructions of the CPU, for which XLA compiles."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(flags.encode()).hexdigest()[:12]


def largest_differences(
    expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return the largest absolute difference of each array of scores.

    Equal infinities and NaN at the same place do not differ; otherwise a NaN gives infinity.
    """
    differences = {}
    for name, wanted in expected.items():
        same = (wanted == actual[name]) | (np.isnan(wanted) & np.isnan(actual[name]))
        with np.errstate(invalid="ignore"):
            gap = np.where(same, 0.0, np.abs(wanted.astype(np.float64) - actual[name]))
        differences[name] = float(np.nan_to_num(gap, nan=np.inf).max(initial=0.0))
    return differences


def require_golden_scores(
    directory: Path,
    expected: Mapping[str, np.ndarray],
    actual: Mapping[str, np.ndarray],
    tolerance: float,
) -> dict[str, float]:
    """Compare the scores of golden requests with those of the export.

    Args:
        directory: directory of the version, for the message.
        expected: scores of the export.
        actual: scores of this process.
        tolerance: largest difference that is accepted; 0 for equality bit by bit.

    Returns:
        The largest difference of each array.

    Raises:
        WrongScores: a difference is larger.
    """
    differences = largest_differences(expected, actual)
    worst = max(differences, key=differences.__getitem__)
    if differences[worst] > tolerance:
        raise WrongScores(
            f"{directory}: {worst} of the golden requests differ by up to "
            f"{differences[worst]:.3g}, and at most {tolerance:.3g} is accepted; do not serve this "
            "artifact here: export the run again, or use the versions in its manifest"
        )
    return differences
