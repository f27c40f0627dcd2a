"""A split scored as a service would score it, session by session, and its metrics.

    cache  <- encode(what a window has before its first session with targets)
    logits <- score(a session's impressions as candidates)
    cache  <- append(the session)

These are the windows of `ligr eval`, so the metrics must be equal too. All members of a batch of
windows take the same step at the same time.
"""

from typing import Any

import numpy as np

from ligr_jax.config import Config, ConfigError, ModelConfig
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.pipeline import plan_for
from ligr_jax.data.positions import positions_where, take_positions
from ligr_jax.data.post_row import at_post_row
from ligr_jax.data.records import Records
from ligr_jax.serve.request_scorer import RequestScorer
from ligr_jax.serve.requests import window_plan
from ligr_jax.train.measure import Predictions, gather_predictions, measure


def replay_metrics(
    scorer: RequestScorer, records: Records, config: Config, split: str, batch: int = 64
) -> dict[str, Any]:
    """Return the metrics of a split as `ligr eval` does, from the scores of a scorer.

    Args:
        scorer: a `Scorer` or an `Artifact`.
        records: prepared data of the run.
        config: configuration of the run.
        split: train, validation or test.
        batch: windows scored together.
    """
    predictions = replay_split(scorer, records, config, split, batch)
    return measure(predictions, records, config, split)


def replay_split(
    scorer: RequestScorer, records: Records, config: Config, split: str, batch: int = 64
) -> Predictions:
    """Return the predictions for all targets of a split.

    Arguments are those of `replay_metrics`.

    Raises:
        ConfigError: the run has a mask under which its sessions cannot be served.
    """
    if config.model.mask == "causal":
        raise ConfigError(
            "model.mask=causal shows an impression the actions of its own session, which are not "
            "known when the session is scored; measure this run with `ligr eval`"
        )
    plan = plan_for(records, config, split)
    # Windows with about as many targets take about as many steps.
    plan = window_plan(plan, np.argsort(plan.stop - plan.target, kind="stable"))
    assemble = Assembler(records, plan, config.model)
    parts = []
    for first in range(0, len(plan), batch):
        rows = np.arange(first, first + batch)
        rows[rows >= len(plan)] = -1  # a row of padding
        windows = at_post_row(assemble(rows), config.model, config.eval.position)
        index, _, _ = plan.gather(rows)
        logits_BNA = replay_windows(scorer, windows, config.model)
        parts.append((index, windows.weight > 0, windows.labels, logits_BNA))
    return gather_predictions(parts, len(config.model.actions))


def replay_windows(scorer: RequestScorer, windows: Batch, model: ModelConfig) -> np.ndarray:
    """Score every session with targets as candidates, after the sessions before it.

    Args:
        scorer: as in `replay_metrics`.
        windows: windows of one member per row; the weight of targets is above 0.
        model: features and actions.

    Returns:
        Logits float32 [B, N, A], zeros where an impression is in no session with targets.
    """
    valid = windows.member > 0
    targets = windows.weight > 0
    beyond = np.iinfo(np.int32).max  # rows without a target
    start = np.where(targets, windows.session, np.int64(beyond)).min(axis=1, keepdims=True)
    end = np.where(targets, windows.session, -1).max(axis=1, keepdims=True)
    logits_BNA = np.zeros((*valid.shape, len(model.actions)), np.float32)
    history = valid & (windows.session < start)
    cache = scorer.encode(take_positions(windows, positions_where(history), model))
    for step in range(int((end - start).max(initial=-1)) + 1):
        session = valid & (windows.session == start + step) & (windows.session <= end)
        index = positions_where(session)
        candidates = take_positions(windows, index, model)
        scored = scorer.score_session(cache, candidates)
        rows, columns = np.nonzero(index >= 0)
        logits_BNA[rows, index[rows, columns]] = scored[rows, columns]
        cache = scorer.append(cache, candidates)
    return logits_BNA
