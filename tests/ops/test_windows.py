"""Laws of history windows: the newest steps of earlier sessions, by the specification."""

import numpy as np
import pytest

from ligr_jax.ops.masks import MaskKind
from ligr_jax.ops.windows import gather_windows, history_windows
from tests.batches import random_batch, random_layout

N, L = 13, 4


@pytest.mark.parametrize("kind", ["session", "session_lag", "causal"])
def test_a_window_is_the_newest_steps_of_earlier_sessions(kind: MaskKind) -> None:
    batch = random_batch(random_layout(np.random.default_rng(0), 24, N), N)
    windows = history_windows(batch.member, batch.session, L, kind)
    number = np.arange(1.0, 24 * N + 1, dtype=np.float32).reshape(24, N, 1)
    gathered = np.asarray(gather_windows(number, windows))[..., 0]
    for r, i in np.ndindex(24, N):
        member, session = batch.member[r], batch.session[r]
        earlier = sorted({s for s in session[member == member[i]] if s < session[i]})
        seen = earlier[:-1] if kind == "session_lag" else earlier
        own = [
            j
            for j in range(N)
            if member[i] > 0
            and member[j] == member[i]
            and (j < i if kind == "causal" else session[j] in seen)
        ]
        newest = [number[r, j, 0] for j in reversed(own)][:L]
        np.testing.assert_array_equal(gathered[r, i], newest + [0] * (L - len(newest)))
