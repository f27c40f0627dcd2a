"""Serving gives the logits of training: one pass, one candidate at a time, cached in any cuts."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.config import HeadConfig, LiRankConfig, WukongConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.post_row import at_post_row
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.nn.models import make_model
from ligr_jax.ops.masks import past_ends
from ligr_jax.serve import Cache, append_history, encode_history, rank_candidates, score_candidates
from ligr_jax.serve.operations import compiled_operations
from tests.batches import (
    FEED_SR,
    HEAD_FEATURES,
    Layout,
    model_config,
    random_batch,
    with_head_features,
)
from tests.nn.models import random_params

SIZE, SET, NEW = 16, 4, 5  # impressions of a cache; candidates of a request; appended at once
# Histories by sessions: a long one, one session, none, and one whose last session is long.
HISTORIES = [[2, 3, 1, 4, 1], [2], [], [1, 1, 6]]
WINDOWED = {"rank": 3, "history": 6, "history_width": 4, "history_last": 3}
CALIBRATED = {"calibration": True, "calibration_step": 1.0, "calibration_features": ("tag",)}
CASES: dict[str, dict[str, Any]] = {
    "ligr": {"head": HeadConfig(**CALIBRATED)},
    "ligr, session lag, ple": {
        "set_depth": 0,
        "mask": "session_lag",
        "position": "relative_session",
        "head": HeadConfig("ple", widths=(5,), experts=2, expert_widths=(5,)),
        "action_token": "actions_and_item",
    },
    "ligr, mup, blocked, scanned": {
        "parametrization": "mup",
        "base_width": 8,
        "base_depth": 1,
        "implementation": "blocked",
        "unroll": "no",
        "remat": True,
    },
    "ligr, set-wise only": {"depth": 0, "position": "none"},
    "ligr, actions as values": {
        "actions_as": "values",
        "position": "relative_session",
        "gate": "both",
        "depth": 2,
        "set_depth": 1,
        "unroll": "no",
    },
    "ligr, late action values": {
        "actions_as": "late_values",
        "position": "relative_time",
        "attention": "sigmoid",
        "depth": 2,
        "set_depth": 0,
        "unroll": "no",
    },
    "hstu": {"kind": "hstu", "position": "relative_time"},
    "hstu, causal": {"kind": "hstu", "mask": "causal", "set_depth": 0, "attention_length": 2048},
    "ligr, feed-sr head, positions": {
        "features": HEAD_FEATURES,
        "depth": 1,
        "set_depth": 1,
        "head": replace(FEED_SR, calibration=True, calibration_step=1.0),
    },
    "ligr_streams, late, positions": {
        "kind": "ligr_streams",
        "features": HEAD_FEATURES,
        "depth": 1,
        "set_depth": 0,
    },
    "wukong": {
        "kind": "wukong",
        "set_depth": 0,
        "wukong": WukongConfig(dual_path=True),
        "head": HeadConfig("mmoe", widths=(6,), experts=3, expert_widths=(5,), **CALIBRATED),
    },
    "lirank feed": {"kind": "lirank", "lirank": LiRankConfig(wide="item_id", **WINDOWED)},
    "lirank ads": {"kind": "lirank", "lirank": LiRankConfig("ads", mlp=(8,), **WINDOWED)},
    "lirank jobs": {"kind": "lirank", "lirank": LiRankConfig("jobs", history=0, rank=3)},
}
BFLOAT16 = {
    f"{name}, bfloat16": CASES[name] | {"dtype": "bfloat16"}
    for name in ("ligr", "hstu", "wukong", "lirank feed")
}


class Served(NamedTuple):
    """A model with random parameters, compiled functions, and a training row per member.

    mask, variables: of the model.
    rows: B rows of a history followed by a session of `SET` impressions.
    logits: of training, [B, N, A].
    """

    mask: Any
    variables: Any
    rows: Batch
    logits: np.ndarray
    apply: Any
    encode: Any
    append: Any
    score: Any
    rank: Any


_served: dict[str, Served] = {}


def served(name: str) -> Served:
    if name not in _served:
        config = model_config(**(CASES | BFLOAT16)[name])
        model = make_model(config)
        layout: Layout = [[[*h, SET]] for h in HISTORIES]
        rows = with_head_features(random_batch(layout, SIZE + SET, unknown=0.2))
        variables = {"params": random_params(config, rows, 0.1), **statistics(model, rows)}
        apply = jax.jit(model.apply)
        _served[name] = Served(
            mask=config.mask,
            variables=variables,
            rows=rows,
            logits=np.asarray(apply(variables, rows)),
            apply=apply,
            encode=jax.jit(partial(encode_history, model)),
            append=jax.jit(partial(append_history, model)),
            score=jax.jit(partial(score_candidates, model)),
            rank=jax.jit(partial(rank_candidates, model), static_argnames="top"),
        )
    return _served[name]


def statistics(model: Any, rows: Batch) -> dict[str, Any]:
    """Return batch statistics that are not the initial ones."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), rows).get(STATISTICS, {})
    filled = jax.tree.map(lambda s: jnp.full(s.shape, 0.4, s.dtype), shapes)
    return {STATISTICS: filled} if filled else {}


def cut(rows: Batch, start: list[int], stop: list[int], size: int) -> Batch:
    """Return impressions start .. stop of each row, padded to `size`."""
    index = np.asarray(start)[:, None] + np.arange(size)
    valid = index < np.asarray(stop)[:, None]
    index = np.where(valid, index, rows.member.shape[1] - 1)  # the last impression is padding
    row = np.arange(len(index))[:, None]
    taken: Batch = jax.tree.map(lambda x: x[row, index], rows)
    return taken._replace(member=valid.astype(np.int32))


LENGTHS = [sum(h) for h in HISTORIES]
ZERO = [0] * len(LENGTHS)


LAST_SESSION = np.array([max(len(h) - 1, 0) for h in HISTORIES], np.int32)  # of a history


def histories(rows: Batch) -> Batch:
    return cut(rows, ZERO, LENGTHS, SIZE)


def candidates(rows: Batch) -> Batch:
    """Return the last session of each row without its labels."""
    asked = cut(rows, LENGTHS, [n + SET for n in LENGTHS], SET)
    return asked._replace(labels=np.full_like(asked.labels, -1))


def expected(s: Served) -> np.ndarray:
    return np.stack([z[n : n + SET] for z, n in zip(s.logits, LENGTHS)])


def pointwise(s: Served, cache: Cache, asked: Batch) -> np.ndarray:
    return np.asarray(s.score(s.variables, cache, asked).logits_BCA)


def rounding(s: Served, name: str) -> float:
    """Return the bound of differences: what rounding of every parameter does to the logits.

    Sums in another order have errors of a few units in the last place of their terms, as if each
    parameter were multiplied by 1 + 4 eps at random.
    """
    eps = 2.0**-8 if "bfloat16" in name else 2.0**-23
    worst = 0.0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        params = jax.tree.map(
            lambda p, rng=rng: p * (1 + 4 * eps * rng.choice([-1, 1], p.shape)).astype(p.dtype),
            s.variables["params"],
        )
        changed = s.apply(s.variables | {"params": params}, s.rows)
        worst = max(worst, float(np.abs(np.asarray(changed) - s.logits).max()))
    return worst + 4 * eps * float(np.abs(s.logits).max())


def close(name: str, ours: np.ndarray, wanted: np.ndarray) -> None:
    bound = rounding(served(name), name)
    worst = float(np.abs(ours - wanted).max(initial=0))
    assert worst <= bound, f"{name}: largest difference {worst:.2g}, bound {bound:.2g}"


@pytest.mark.parametrize("name", CASES | BFLOAT16)
def test_training_on_the_last_session_equals_one_pass(name: str) -> None:
    s = served(name)
    cache = s.encode(s.variables, histories(s.rows))
    ranking = s.rank(s.variables, cache, candidates(s.rows), top=SET, weights=jnp.ones(3))
    seen = slice(0, 1 if "causal" in name else SET)  # the causal mask shows the first its history
    close(name, np.asarray(ranking.logits_BCA)[:, seen], expected(s)[:, seen])


@pytest.mark.parametrize("name", [*CASES, "ligr, bfloat16"])
def test_a_history_in_any_cuts_equals_a_whole_one(name: str) -> None:
    """Cuts are inside sessions as well; some appends are empty for some rows."""
    s = served(name)
    whole = pointwise(s, s.encode(s.variables, histories(s.rows)), candidates(s.rows))
    rng = np.random.default_rng(0)
    for _ in range(3):
        stop = [int(rng.integers(0, n + 1)) for n in LENGTHS]
        cache = s.encode(s.variables, cut(s.rows, ZERO, stop, SIZE))
        while stop != LENGTHS:
            start = stop
            stop = [min(n, i + int(rng.integers(0, NEW + 1))) for i, n in zip(start, LENGTHS)]
            cache = s.append(s.variables, cache, cut(s.rows, start, stop, NEW))
        assert cache.length.tolist() == LENGTHS
        close(name, pointwise(s, cache, candidates(s.rows)), whole)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.get("set_depth") == 0])
def test_a_request_within_a_session_does_not_see_that_session(name: str) -> None:
    """Two impressions of the session are known, and two are scored."""
    s = served(name)
    known = [n + 2 for n in LENGTHS]
    cache = s.encode(s.variables, cut(s.rows, ZERO, known, SIZE))
    asked = cut(s.rows, known, [n + SET for n in LENGTHS], SET)
    seen = slice(0, 1 if "causal" in name else 2)
    close(name, pointwise(s, cache, asked)[:, seen], expected(s)[:, 2:][:, seen])


@pytest.mark.parametrize("name", [n for n in CASES if "positions" in n])
def test_a_score_at_a_position_is_that_of_training_for_impressions_shown_there(name: str) -> None:
    """All positions are scored in one pass; set-wise layers are compared at one position each."""
    s = served(name)
    model = make_model(model_config(**CASES[name]))
    cache, asked = s.encode(s.variables, histories(s.rows)), candidates(s.rows)
    operations = compiled_operations(model, top=SET)
    inputs = (s.variables["params"], {}, {})
    at_all = np.asarray(operations.positions(inputs, cache, asked))
    for row in range(1, 4):
        shown = at_post_row(s.rows, model.config, row)
        wanted = expected(s._replace(logits=np.asarray(s.apply(s.variables, shown))))
        at_row = at_post_row(asked, model.config, row)
        if model.config.set_depth:
            ranking = s.rank(s.variables, cache, at_row, top=SET, weights=jnp.ones(3))
            close(name, np.asarray(ranking.logits_BCA), wanted)
            wanted = pointwise(s, cache, at_row)
        close(name, at_all[row - 1], wanted)
    assert (np.ptp(at_all, axis=0) > 0.01).any()


@pytest.mark.parametrize("name", ["ligr", "lirank feed"])
def test_the_jacobian_of_a_candidate_by_another_is_zero(name: str) -> None:
    s = served(name)
    model = make_model(model_config(**CASES[name]))
    cache = s.encode(s.variables, histories(s.rows))
    asked = candidates(s.rows)

    def function(content: jax.Array) -> jax.Array:
        changed = asked._replace(vectors={"content": content})
        logits_BCA = score_candidates(model, s.variables, cache, changed).logits_BCA
        return logits_BCA @ jnp.array([1.0, -0.7, 0.3])

    jacobian = jax.jit(jax.jacfwd(function))(jnp.asarray(asked.vectors["content"]))
    affects = (np.asarray(jacobian) != 0).any(-1)  # [B, C, B, C]
    own = np.eye(len(LENGTHS) * SET, dtype=bool).reshape(affects.shape)
    assert not affects[~own].any()
    assert affects[own].mean() > 0.8  # a calibration curve may be flat


@pytest.mark.parametrize("name", [n for n in CASES if "only" not in n and "jobs" not in n])
def test_only_visible_impressions_of_the_cache_have_an_effect(name: str) -> None:
    """The request continues the newest session, whose impressions are hidden; so is padding."""
    s = served(name)
    cache = s.encode(s.variables, histories(s.rows))
    asked = candidates(s.rows)._replace(
        session=np.broadcast_to(np.maximum(LAST_SESSION, 0)[:, None], (len(LENGTHS), SET))
    )
    end = np.asarray(past_ends(cache.session, cache.length, asked.session[:, :1], s.mask))
    visible = np.arange(SIZE) < end
    unchanged = pointwise(s, cache, asked)
    for where in (visible, ~visible):
        kept = jax.tree.map(
            lambda x, w=where: x + np.where(w.reshape(1, *w.shape, *[1] * (x.ndim - 3)), 1, 0),
            cache.kept,
        )
        changed = pointwise(s, cache._replace(kept=jax.tree.map(_typed, kept, cache.kept)), asked)
        differs = (changed != unchanged).any((1, 2))
        np.testing.assert_array_equal(differs, end[:, 0] > 0 if where is visible else False)


def _typed(x: jax.Array, like: jax.Array) -> jax.Array:
    return x.astype(like.dtype)


@pytest.mark.parametrize("name", CASES)
def test_a_candidate_does_not_depend_on_the_others(name: str) -> None:
    """Alone, in another order, among padding, and with other candidates: bit for bit."""
    s = served(name)
    cache = s.encode(s.variables, histories(s.rows))
    asked = candidates(s.rows)
    whole = pointwise(s, cache, asked)
    order = [2, 0, 3, 1]
    shuffled = jax.tree.map(lambda x: x[:, order], asked)
    np.testing.assert_array_equal(pointwise(s, cache, shuffled), whole[:, order])
    for i in range(SET):
        first = jax.tree.map(lambda x, i=i: x[:, [i, 1, 1, 1]], asked)
        alone = first._replace(member=np.array([[1, 0, 0, 0]] * len(LENGTHS), np.int32))
        np.testing.assert_array_equal(pointwise(s, cache, alone)[:, 0], whole[:, i])


def test_a_cache_with_too_many_impressions_scores_nan() -> None:
    """A pure function cannot raise an error; other rows are not affected."""
    s = served("ligr")
    cache = s.encode(s.variables, histories(s.rows))
    new = cut(s.rows, ZERO, [NEW] * len(LENGTHS), NEW)
    new = new._replace(session=np.broadcast_to(LAST_SESSION[:, None], new.session.shape))
    for _ in range(2):
        cache = s.append(s.variables, cache, new)
    full = np.array(LENGTHS) + 2 * NEW > SIZE
    assert set(full.tolist()) == {True, False}
    ranking = s.rank(s.variables, cache, candidates(s.rows), top=SET, weights=jnp.ones(3))
    np.testing.assert_array_equal(np.isnan(ranking.logits_BCA).all((1, 2)), full)
    np.testing.assert_array_equal(np.isnan(ranking.logits_BCA).any((1, 2)), full)
