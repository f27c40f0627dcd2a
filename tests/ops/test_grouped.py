"""Laws of the grouped matrix product: equality with a loop over rows, independence, FLOPs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ligr_jax.ops.grouped import GroupedForm, grouped_matmul
from tests.cost.test_flops import products

FORMS = ("scan", "batched", "ragged")
RNG = np.random.default_rng(0)


def problem(rows: int, experts: int, d: int = 3, f: int = 5) -> tuple[np.ndarray, ...]:
    """Return x, w, the expert of each row (the last one without rows), and weights of outputs."""
    x, w, g = (
        RNG.normal(size=s).astype(np.float32) for s in ((rows, d), (experts, d, f), (rows, f))
    )
    return x, w, RNG.integers(0, max(experts - 1, 1), rows).astype(np.int32), g


def with_gradients(form: GroupedForm) -> Callable[..., Any]:
    """Return a jitted function of (x, w, expert, g): the product and the gradients of its sum with
    weights g."""

    def run(x: jax.Array, w: jax.Array, expert: jax.Array, g: jax.Array) -> Any:
        y, pull = jax.vjp(lambda x, w: grouped_matmul(x, w, expert, form=form), x, w)
        return y, *pull(g.astype(y.dtype))

    return jax.jit(run)


def reference(x: np.ndarray, w: np.ndarray, expert: np.ndarray, g: np.ndarray) -> list[np.ndarray]:
    """Compute the same in float64, row by row."""
    x, w, g = (np.asarray(a, np.float64) for a in (x, w, g))
    y, dx, dw = np.zeros(g.shape), np.zeros(x.shape), np.zeros(w.shape)
    for i, e in enumerate(expert):
        y[i] = x[i] @ w[e]
        dx[i] = w[e] @ g[i]
        dw[e] += np.outer(x[i], g[i])
    return [y, dx, dw]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rows", "experts"), [(1, 3), (5, 1), (70, 4), (300, 2)])
def test_each_row_is_multiplied_by_the_matrix_of_its_expert(
    rows: int, experts: int, form: GroupedForm
) -> None:
    args = problem(rows, experts)
    for ours, expected in zip(with_gradients(form)(*args), reference(*args)):
        np.testing.assert_allclose(ours, expected, atol=2e-6 * max(1, rows))


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_accumulates_in_float32(form: GroupedForm) -> None:
    """The sum of many products of one expert is as exact as its last rounding."""
    x, w, expert, g = (jnp.asarray(a) for a in problem(600, 2, d=64))
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    results = with_gradients(form)(x, w, expert, g.astype(jnp.bfloat16))
    for ours, expected in zip(results, reference(x, w, expert, g.astype(jnp.bfloat16))):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float64(ours), expected, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_row_does_not_depend_on_the_other_rows(form: GroupedForm) -> None:
    """Whatever the other rows hold, and if all of them have the same expert."""
    x, w, expert, _ = problem(70, 4)
    run = jax.jit(partial(grouped_matmul, form=form))
    known = np.asarray(run(x, w, expert))
    for e in range(4):
        others, crowd = np.full_like(x, 1e3), np.full_like(expert, e)
        others[:7], crowd[:7] = x[:7], expert[:7]
        np.testing.assert_allclose(run(others, w, crowd)[:7], known[:7], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_vmap_is_a_loop(form: GroupedForm) -> None:
    several = [problem(20, 3) for _ in range(2)]
    batched = jax.vmap(with_gradients(form))(*(np.stack(a) for a in zip(*several)))
    for i, args in enumerate(several):
        for ours, expected in zip(batched, reference(*args)):
            np.testing.assert_allclose(ours[i], expected, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_devices_sort_their_own_rows(form: GroupedForm) -> None:
    """Eight devices agree with one, and exchange the gradient of w only."""
    args = problem(160, 3)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    rows = NamedSharding(mesh, PartitionSpec(("data", "model")))
    placed = [
        jax.device_put(a, s)
        for a, s in zip(args, (rows, NamedSharding(mesh, PartitionSpec()), rows, rows))
    ]
    with jax.set_mesh(mesh):
        compiled = with_gradients(form).lower(*placed).compile()
    text = compiled.as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text
    assert "all-reduce" in text
    for ours, expected in zip(compiled(*placed), reference(*args)):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "experts"), [(4096, 8), (2048, 16), (1024, 16), (40, 16), (3, 16)]
)
def test_flops_are_those_of_the_chosen_matrices_and_of_padding(rows: int, experts: int) -> None:
    """Of the forward pass and of both products of the backward pass; `ragged` has no padding."""
    d, f = 32, 64
    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (
            ((rows, d), np.float32),
            ((experts, d, f), np.float32),
            ((rows,), np.int32),
            ((rows, f), np.float32),
        )
    ]
    exact = 3 * 2 * rows * d * f
    for form in FORMS:
        traced = jax.make_jaxpr(with_gradients(form))(*shapes)
        padding = sum(products(traced.jaxpr)) / exact - 1
        if form == "ragged":
            assert padding == 0
        else:
            assert 0 <= padding <= (1 / 8 if rows >= 64 * experts else 7 * experts / rows)


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, w, expert, _ = problem(6, 2)
    with pytest.raises(ValueError, match=r"x \(6, 3\), w \(2, 3, 5\) and expert \(5,\) do not fit"):
        grouped_matmul(x, w, expert[:5])
