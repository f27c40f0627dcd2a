"""What every kind of model offers for serving, in addition to its training call.

    encode(histories) -> kept                      what the kind keeps of every impression
    extend(new impressions, history) -> kept       of the new impressions
    score(candidates, history) -> Scores           point-wise
    score_set(SetInput, valid) -> logits           set-wise, for kinds with such layers

`ligr_jax.serve` keeps the results in padded arrays and calls these methods.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax

if TYPE_CHECKING:  # artifacts are served without the code of models
    from ligr_jax.nn.head_inputs import HeadInputs


class History(NamedTuple):
    """The kept part of B histories, as N new impressions see it.

    kept: what `encode` returns, arrays [L, B, S, ..]; finite in padding.
    session: int32 [B, S], numbers of their sessions.
    time: float32 [B, S], their times in hours.
    end: int32 [B, N], or [B, 1] if equal for all new impressions: each sees the first `end` kept
        impressions; see `past_ends`.
    length: int32 [B, 1], number of kept impressions.
    """

    kept: Any
    session: jax.Array
    time: jax.Array
    end: jax.Array
    length: jax.Array


class SetInput(NamedTuple):
    """What set-wise layers need of the candidates.

    hidden_BCD: [B, C, D], the output of the historical layers.
    logits_BCA: float32 [B, C, A], point-wise, before the calibration.
    features_BCW: [B, C, W], calibration features; None without any.
    heads: what the heads read in addition to the token.
    """

    hidden_BCD: jax.Array
    logits_BCA: jax.Array
    features_BCW: jax.Array | None
    heads: "HeadInputs"


class Scores(NamedTuple):
    """Point-wise scores of C candidates.

    logits_BCA: float32 [B, C, A], calibrated; they do not depend on other candidates.
    valid_BC: bool [B, C], False in padding.
    setwise: input of the set-wise layers; None for models without any.
    """

    logits_BCA: jax.Array
    valid_BC: jax.Array
    setwise: SetInput | None = None
