"""Laws of the masks: ranges of keys equal the specification, pair by pair."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.ops.masks import allowed_pairs, dense_mask, history_mask, past_ends, session_mask
from tests.batches import random_batch, random_layout

N, ROWS = 13, 24


def may_see(kind: str, member: np.ndarray, session: np.ndarray, t: int, j: int) -> bool:
    """Return whether token t may attend to token j of the same row, by the specification."""
    i, k = t // 2, j // 2  # their impressions
    if j in (t, 2 * i):  # itself; an action attends to the item it answers
        return True
    if member[i] != member[k]:
        return False
    earlier = {int(s) for s in session[member == member[i]] if s < session[i]}
    if kind == "session_lag":
        earlier -= {max(earlier, default=-1)}
    return k < i if kind == "causal" else session[k] in earlier


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    batch = random_batch(random_layout(np.random.default_rng(0), ROWS, N), N)
    return batch.member, batch.session


@pytest.mark.parametrize("kind", ["session", "causal", "session_lag"])
def test_history_mask_equals_the_specification(
    kind: str, rows: tuple[np.ndarray, np.ndarray]
) -> None:
    member, session = rows
    mask = history_mask(*map(jax.numpy.asarray, rows), kind)  # type: ignore[arg-type]
    wanted = np.array(
        [
            [[may_see(kind, m, s, t, j) for j in range(2 * N)] for t in range(2 * N)]
            for m, s in zip(member, session)
        ]
    )
    real = np.repeat(member > 0, 2, axis=1)
    np.testing.assert_array_equal(mask.valid, real)
    np.testing.assert_array_equal(np.asarray(dense_mask(mask))[real], wanted[real])
    assert allowed_pairs(mask) == wanted[real].sum()


@pytest.mark.parametrize("kind", ["session", "causal", "session_lag"])
def test_new_impressions_see_of_a_kept_history_what_one_row_shows_them(kind: Any) -> None:
    """Every cut of a member's row, inside sessions too; new ones are padded."""
    session = np.repeat(np.arange(5), [2, 1, 3, 1, 4]).astype(np.int32)[None]
    n = session.shape[1]
    whole = np.asarray(history_mask(np.ones_like(session), session, kind).hi)[0, ::2] // 2
    for cut in range(n + 1):
        kept, new = np.zeros((1, n + 2), np.int32), np.zeros((1, n + 1), np.int32)
        kept[0, :cut], new[0, : n - cut] = session[0, :cut], session[0, cut:]
        ends = past_ends(*map(jnp.asarray, (kept, [cut], new)), kind)
        np.testing.assert_array_equal(ends[0, : n - cut], np.minimum(whole, cut)[cut:])


def test_session_mask_connects_all_items_of_a_session(
    rows: tuple[np.ndarray, np.ndarray],
) -> None:
    member, session = rows
    mask = session_mask(*map(jax.numpy.asarray, rows))
    wanted = (member[:, :, None] == member[:, None]) & (session[:, :, None] == session[:, None])
    dense, real = np.asarray(dense_mask(mask)), member > 0
    np.testing.assert_array_equal(mask.valid, real)
    np.testing.assert_array_equal(dense[real], wanted[real])
    assert allowed_pairs(mask) == wanted[real].sum()


def test_padding_attends_to_nothing_real_and_no_real_token_attends_to_it() -> None:
    batch = random_batch([[[2, 1]], []], 5)
    for mask, real in (
        (history_mask(batch.member, batch.session), np.repeat(batch.member > 0, 2, 1)),
        (session_mask(batch.member, batch.session), batch.member > 0),
    ):
        dense = np.asarray(dense_mask(mask))
        assert not (dense & real[:, :, None] & ~real[:, None]).any()
        assert not (dense & ~real[:, :, None] & real[:, None]).any()
        assert dense[real].any(1).all()
        assert allowed_pairs(mask) == dense[real].sum()
