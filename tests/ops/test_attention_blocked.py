"""Laws of blocked attention: it equals the dense form, at a cost set by the ranges."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ligr_jax.ops.attention import RelativeBias, attend
from ligr_jax.ops.attention.blocked import Tiles, attend_blocked
from ligr_jax.ops.attention.dense import attend_dense
from ligr_jax.ops.attention.scores import Activation
from ligr_jax.ops.masks import Mask, allowed_pairs, history_mask, session_mask
from tests.batches import random_batch, random_layout

HEADS, K = 4, 8
MASKS: dict[str, Callable[..., Mask]] = {
    "session": history_mask,
    "causal": partial(history_mask, kind="causal"),
    "session_lag": partial(history_mask, kind="session_lag"),
    "in-session": session_mask,
}


class Problem:
    """Random arrays and a bias over random packed rows, the last of which is all padding."""

    def __init__(self, kind: str, seed: int, n: int, groups: int = HEADS, rows: int = 4) -> None:
        rng = np.random.default_rng(seed)
        batch = random_batch([*random_layout(rng, rows - 1, n), []], n)
        self.mask = jax.jit(MASKS[kind])(batch.member, batch.session)
        rows, t = self.mask.lo.shape
        shapes = [(rows, t, h, K) for h in (HEADS, groups, groups, HEADS)]
        arrays = [jnp.asarray(rng.normal(size=s).astype(np.float32)) for s in shapes]
        *self.qkv, self.d_out = arrays
        position = jnp.asarray(np.repeat(batch.session, t // n, axis=1))
        table = jnp.asarray(rng.normal(size=(HEADS, 8)).astype(np.float32))
        self.bias = RelativeBias(table, position)

    def both_ways(self, function: Callable[..., jax.Array], *extra: Any) -> Any:
        """Return the output, and the gradients by q, k, v and the bias table."""

        def run(qkv: Any, table: jax.Array, d_out: jax.Array) -> Any:
            call = lambda qkv, t: function(*qkv, self.mask, self.bias._replace(table=t))  # noqa: E731
            out, pull = jax.vjp(call, qkv, table)
            return out, pull(d_out)

        return jax.jit(run)(self.qkv, self.bias.table, self.d_out)


def blocked(tiles: Tiles, activation: Activation, with_bias: bool) -> Callable[..., jax.Array]:
    return lambda q, k, v, mask, bias: attend_blocked(
        q, k, v, mask, activation, bias if with_bias else None, tiles
    )[0]


def dense(activation: Activation, with_bias: bool) -> Callable[..., jax.Array]:
    return lambda q, k, v, mask, bias: attend_dense(
        q, k, v, mask, activation, bias if with_bias else None
    )[0]


def assert_close(a: Any, b: Any, relative: float) -> None:
    """Compare leaf by leaf, relative to the largest value of each leaf."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        np.testing.assert_allclose(x, y, rtol=0, atol=relative * max(np.abs(y).max(), 1))


# Tiles smaller than sessions, larger than rows, and not dividing T; query heads sharing keys.
CASES = [
    ("session", Tiles(4, 6), "softmax", False, 4),
    ("session", Tiles(8, 5), "softmax", True, 2),
    ("session", Tiles(64, 64), "silu", True, 4),
    ("session", Tiles(6, 3), "sigmoid", False, 1),
    ("causal", Tiles(5, 7), "softmax", False, 2),
    ("causal", Tiles(5, 4), "silu", True, 4),
    ("session_lag", Tiles(4, 4), "softmax", False, 4),
    ("in-session", Tiles(4, 6), "softmax", False, 4),
    ("in-session", Tiles(3, 2), "softmax", True, 2),
    ("in-session", Tiles(5, 4), "sigmoid", False, 4),
]


@pytest.mark.parametrize(("kind", "tiles", "activation", "with_bias", "groups"), CASES)
def test_outputs_and_gradients_equal_the_dense_reference(
    kind: str, tiles: Tiles, activation: Activation, with_bias: bool, groups: int
) -> None:
    for seed, n in ((0, 23), (1, 17)):
        problem = Problem(kind, seed, n, groups)
        ours = problem.both_ways(blocked(tiles, activation, with_bias))
        theirs = problem.both_ways(dense(activation, with_bias))
        assert_close(ours, theirs, 1e-5)


@pytest.mark.parametrize("kind", ["session", "in-session"])
def test_bfloat16_agrees_with_float32_within_its_rounding(kind: str) -> None:
    problem = Problem(kind, 0, 40, groups=2)
    problem.qkv = [x.astype(jnp.bfloat16).astype(jnp.float32) for x in problem.qkv]
    exact = problem.both_ways(dense("softmax", False))
    problem.qkv = [x.astype(jnp.bfloat16) for x in problem.qkv]
    problem.d_out = problem.d_out.astype(jnp.bfloat16)
    out, gradients = problem.both_ways(blocked(Tiles(16, 16), "softmax", False))
    assert {x.dtype for x in (out, *gradients[0])} == {jnp.dtype(jnp.bfloat16)}
    assert_close((out, gradients), exact, 2e-2)


def test_padding_has_zero_outputs_and_zero_gradients() -> None:
    for kind in MASKS:
        problem = Problem(kind, 2, 19)
        out, (gradients, _) = problem.both_ways(blocked(Tiles(8, 8), "softmax", False))
        padding = ~np.asarray(problem.mask.valid)
        for x in (out, *gradients):
            assert (np.asarray(x)[padding] == 0).all()
            assert np.isfinite(x).all()


def windows(mask: Mask, tiles: Tiles) -> int:
    """Count the windows that all query tiles visit."""
    from ligr_jax.ops.attention.blocked import _Problem, _QueryTile, _tile_count

    x = jnp.zeros((*mask.lo.shape, 1, 1))
    problem = _Problem(x, x, x, mask, None, None)
    count = lambda i: _QueryTile(i, problem, tiles, True).all_windows  # noqa: E731
    return int(jax.vmap(count)(jnp.arange(_tile_count(problem, tiles))).sum())


def test_work_follows_the_allowed_pairs() -> None:
    """Four packed members cost a quarter of one member of the same total length; the cost of a
    session is the square of its length."""
    tiles, n = Tiles(32, 32), 512
    session = jnp.arange(n)[None] // 4
    one = history_mask(jnp.ones_like(session), session)
    four = history_mask(1 + jnp.arange(n)[None] // (n // 4), session % (n // 16))
    per_tile = tiles.rows * tiles.keys
    for mask in (one, four):
        assert windows(mask, tiles) * per_tile < 1.3 * allowed_pairs(mask) + 2 * n * tiles.keys
    assert windows(four, tiles) < 0.35 * windows(one, tiles)
    long = session_mask(jnp.ones_like(session), jnp.arange(n)[None] // 128)
    assert windows(long, tiles) == n // 32 * 4
    short = session_mask(jnp.ones_like(session), jnp.arange(n)[None] // 4)
    assert windows(short, tiles) == n // 32
    padding = Mask(*(jnp.zeros((1, n), t) for t in (int, int, bool)))
    assert windows(padding, tiles) == 0


@pytest.mark.parametrize("kind", ["session", "in-session"])
def test_memory_is_linear_in_length(kind: str) -> None:
    def temporaries(t: int, implementation: Any) -> int:
        x = jax.ShapeDtypeStruct((2, t, 4, 64), jnp.float32)
        i, b = (jax.ShapeDtypeStruct((2, t), d) for d in (jnp.int32, bool))
        mask = Mask(i, i, b, i if kind == "session" else None)

        def loss(q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask) -> jax.Array:
            return attend(q, k, v, mask, implementation=implementation).sum()

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
        return gradient.lower(x, x, x, mask).compile().memory_analysis().temp_size_in_bytes

    at_1024, at_2048 = (temporaries(t, "blocked") for t in (1024, 2048))
    assert at_2048 < 2.2 * at_1024
    assert at_2048 < 0.06 * temporaries(2048, "dense")


def test_transformations_do_not_change_results() -> None:
    problem = Problem("session", 3, 16)
    q, k, v = problem.qkv
    run = partial(attend, implementation="blocked")
    plain = run(q, k, v, problem.mask)

    stacked = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), (q, k, v, problem.mask))
    both = jax.vmap(run)(*stacked)
    np.testing.assert_allclose(both[0], plain, atol=1e-6)
    np.testing.assert_allclose(both[1], plain[::-1], atol=1e-6)

    loss = lambda q: (run(q, k, v, problem.mask) ** 2).sum()  # noqa: E731
    expected = jax.grad(loss)(q)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(loss))(q), expected, atol=1e-6)

    exported = jax.export.export(jax.jit(jax.grad(loss)))(q)
    np.testing.assert_allclose(exported.call(q), expected, atol=1e-6)

    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    split = P("data", None, "model")
    sharded = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(split, split, split, P("data")),
        out_specs=split,
        check_vma=False,
    )
    np.testing.assert_allclose(jax.jit(sharded)(q, k, v, problem.mask), plain, atol=1e-6)


def test_on_a_mesh_each_device_attends_for_its_own_rows() -> None:
    problem = Problem("session", 4, 16, rows=8)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def gradient(qkv: Any, table: jax.Array, mask: Mask, position: jax.Array) -> Any:
        bias = RelativeBias(table, position)
        loss = lambda qkv, t: (  # noqa: E731
            attend(*qkv, mask, bias=bias._replace(table=t), implementation="blocked") ** 2
        ).sum()
        return jax.value_and_grad(loss, argnums=(0, 1))(qkv, table)

    arguments = (problem.qkv, problem.bias.table, problem.mask, problem.bias.position)
    alone = jax.jit(gradient)(*arguments)
    with jax.set_mesh(mesh):
        rows, everywhere = (NamedSharding(mesh, s) for s in (P("data"), P()))
        spread = jax.jit(gradient, in_shardings=(rows, everywhere, rows, rows))
        compiled = spread.lower(*arguments).compile()
        assert "all-gather" not in compiled.as_text()
        assert_close(spread(*arguments), alone, 1e-6)


def test_shapes_that_do_not_fit_are_refused() -> None:
    problem = Problem("session", 0, 8)
    q, k, v = problem.qkv
    with pytest.raises(ValueError, match="do not fit together"):
        attend(q, k[:, :, :3], v[:, :, :3], problem.mask)
