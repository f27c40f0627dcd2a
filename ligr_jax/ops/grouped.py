"""Grouped matrix product: every row is multiplied by the matrix of its expert, and by no other.

Rows are sorted by expert, and the rows of each expert are padded to whole blocks, so that a block
has one matrix (MegaBlocks, Gale et al. 2022, arXiv:2211.15841). There is no capacity: no row is
dropped, so a row's result does not depend on the other rows.

`jax.lax.ragged_dot` computes the same, but JAX 0.10 lowers it on CPUs to one dense product of E
times the FLOPs, and its kernel for GPUs is off by default. Hence the forms, of which only `scan`
has been timed (experiments/sparse_experts.py):

    scan       one block after the other (CPU)
    batched    all blocks in one batched product, with a copy of the matrix for each (GPU)
    ragged     `jax.lax.ragged_dot`, without padding (TPU)

Letters: N rows, E experts, n blocks of b rows, P = n b padded rows.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import min_dim
from jax.sharding import PartitionSpec

from ligr_jax.ops.rows import row_axes

GroupedForm = Literal["auto", "scan", "batched", "ragged"]

# Exported programs, which have a symbolic number of rows, run on any device: by `scan`.
FORM_OF_BACKEND: dict[str, GroupedForm] = {"cpu": "scan", "gpu": "batched", "tpu": "ragged"}
_LARGEST_BLOCK = 128
_SMALLEST_BLOCK = 8
_SYMBOLIC_BLOCK = 32


def grouped_matmul(
    x_ND: jax.Array, w_EDF: jax.Array, expert_N: jax.Array, *, form: GroupedForm = "auto"
) -> jax.Array:
    """Multiply each row by the matrix of its expert: y_n = x_n w[expert_n].

    The FLOPs are 2 N D F and those of the padding, which is at most an eighth of the rows from 64
    rows per expert on; the backward pass takes twice as many. Products accumulate in float32.
    Reverse-mode derivatives with respect to x and w are defined, forward-mode derivatives are not.
    Under `jax.set_mesh` with axes `data` or `model`, each device sorts and multiplies its own rows.

    For experts per token position, M positions with X experts each, E = M X: reshape w to
    [M X, D, F], and number the expert of row n at position m as m X + choice.

    Args:
        x_ND: [N, D], rows; a row with several experts is repeated.
        w_EDF: [E, D, F], the matrices, in the dtype of x.
        expert_N: int32 [N], the expert of each row, in 0..E-1.
        form: how to compute the product; `auto` chooses by device.

    Returns:
        [N, F] in the dtype of x.

    Raises:
        ValueError: the shapes do not fit together.
    """
    rows, width = x_ND.shape
    if w_EDF.shape[1] != width or expert_N.shape != (rows,):
        raise ValueError(
            f"x {x_ND.shape}, w {w_EDF.shape} and expert {expert_N.shape} do not fit together; "
            "expected [N, D], [E, D, F] and [N]"
        )
    if form == "auto":
        backend = jax.default_backend() if isinstance(rows, int) else "any"
        form = FORM_OF_BACKEND.get(backend, "scan")
    product = partial(_product, form)
    axes = row_axes(rows)
    if axes:
        by_rows, replicated = PartitionSpec(axes), PartitionSpec()
        product = jax.shard_map(
            product, in_specs=(by_rows, replicated, by_rows), out_specs=by_rows, check_vma=False
        )
    return product(x_ND, w_EDF, expert_N)


class _Layout(NamedTuple):
    """Where rows are when sorted by expert and padded.

    Attributes:
        row_P: the row in each place, N for padding.
        place_N: the place of each row.
        expert_n: the expert of each block; of blocks without rows, the last.
        places_E: number of places of each expert.
    """

    row_P: jax.Array
    place_N: jax.Array
    expert_n: jax.Array
    places_E: jax.Array


def _layout(expert_N: jax.Array, experts: int, block: int) -> _Layout:
    rows = expert_N.shape[0]
    # At most block - 1 places of each expert are padding, and every block in use has a row.
    blocks = min_dim((rows + experts * (block - 1)) // block, rows)
    order = jnp.argsort(expert_N)
    rows_E = jnp.zeros(experts, jnp.int32).at[expert_N].add(1)
    blocks_E = (rows_E + block - 1) // block
    ends_E = jnp.cumsum(blocks_E)
    # Padding shifts all rows of an expert by the same number of places.
    shift_E = (ends_E - blocks_E) * block - (jnp.cumsum(rows_E) - rows_E)
    places = jnp.arange(rows, dtype=jnp.int32) + shift_E[expert_N[order]]
    expert_n = jnp.searchsorted(ends_E, jnp.arange(blocks), side="right")
    return _Layout(
        row_P=jnp.full(blocks * block, rows).at[places].set(order, unique_indices=True),
        place_N=jnp.zeros(rows, jnp.int32).at[order].set(places, unique_indices=True),
        expert_n=jnp.minimum(expert_n, experts - 1),
        places_E=blocks_E * block,
    )


def _block_size(rows: int, experts: int) -> int:
    """Return the largest power of two at which padding is at most an eighth, within limits."""
    if not isinstance(rows, int):
        return _SYMBOLIC_BLOCK
    block = _SMALLEST_BLOCK
    while block < _LARGEST_BLOCK and 16 * block * experts <= rows:
        block *= 2
    return block


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(form: str, x_ND: jax.Array, w_EDF: jax.Array, expert_N: jax.Array) -> jax.Array:
    return _forward(form, x_ND, w_EDF, expert_N)[0]


_Saved = tuple[jax.Array, jax.Array, _Layout]


def _forward(
    form: str, x_ND: jax.Array, w_EDF: jax.Array, expert_N: jax.Array
) -> tuple[jax.Array, _Saved]:
    experts = len(w_EDF)
    block = 1 if form == "ragged" else _block_size(x_ND.shape[0], experts)
    layout = _layout(expert_N, experts, block)
    y_PF = _FORMS[form].product(_padded(x_ND, layout), w_EDF, layout)
    return y_PF.astype(x_ND.dtype)[layout.place_N], (x_ND, w_EDF, layout)


def _backward(form: str, saved: _Saved, dy_NF: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    x_ND, w_EDF, layout = saved
    dy_PF = _padded(dy_NF, layout)
    dx_PD = _FORMS[form].product(dy_PF, w_EDF.swapaxes(1, 2), layout)
    dw_EDF = _FORMS[form].weight_gradient(_padded(x_ND, layout), dy_PF, layout)
    return dx_PD.astype(x_ND.dtype)[layout.place_N], dw_EDF.astype(w_EDF.dtype), None


_product.defvjp(_forward, _backward)


def _padded(x_ND: jax.Array, layout: _Layout) -> jax.Array:
    """Return the rows in their places, zero in padding."""
    # On a CPU, faster than a gather with a fill value.
    zero_row = jnp.zeros((1, x_ND.shape[1]), x_ND.dtype)
    return jnp.concatenate([x_ND, zero_row])[layout.row_P]


def _in_blocks(x_PD: jax.Array, layout: _Layout) -> jax.Array:
    return x_PD.reshape(layout.expert_n.shape[0], -1, x_PD.shape[1])


def _dot32(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _scan_product(x_PD: jax.Array, w_EDF: jax.Array, layout: _Layout) -> jax.Array:
    def multiply(_: None, block: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        x_bD, expert = block
        return None, _dot32(x_bD, w_EDF[expert])

    _, y_nbF = lax.scan(multiply, None, (_in_blocks(x_PD, layout), layout.expert_n))
    return y_nbF.reshape(-1, w_EDF.shape[2])


def _scan_gradient(x_PD: jax.Array, dy_PF: jax.Array, layout: _Layout) -> jax.Array:
    def add(
        dw_EDF: jax.Array, block: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        x_bD, dy_bF, expert = block
        return dw_EDF.at[expert].add(_dot32(x_bD.T, dy_bF)), None

    shape = (len(layout.places_E), x_PD.shape[1], dy_PF.shape[1])
    blocks = (_in_blocks(x_PD, layout), _in_blocks(dy_PF, layout), layout.expert_n)
    return lax.scan(add, jnp.zeros(shape, jnp.float32), blocks)[0]


def _batched_product(x_PD: jax.Array, w_EDF: jax.Array, layout: _Layout) -> jax.Array:
    y_nbF = _dot32(_in_blocks(x_PD, layout), w_EDF[layout.expert_n])
    return y_nbF.reshape(-1, w_EDF.shape[2])


def _batched_gradient(x_PD: jax.Array, dy_PF: jax.Array, layout: _Layout) -> jax.Array:
    x_nbD, dy_nbF = (_in_blocks(a_PD, layout) for a_PD in (x_PD, dy_PF))
    return jax.ops.segment_sum(
        _dot32(x_nbD.swapaxes(1, 2), dy_nbF),
        layout.expert_n,
        num_segments=len(layout.places_E),
        indices_are_sorted=True,
    )


def _ragged_product(x_PD: jax.Array, w_EDF: jax.Array, layout: _Layout) -> jax.Array:
    return lax.ragged_dot(x_PD, w_EDF, layout.places_E, preferred_element_type=jnp.float32)


def _ragged_gradient(x_PD: jax.Array, dy_PF: jax.Array, layout: _Layout) -> jax.Array:
    contract_rows = lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(([0], [0]), ([], [])),
        lhs_ragged_dimensions=[0],
        rhs_group_dimensions=[],
    )
    return lax.ragged_dot_general(
        x_PD, dy_PF, layout.places_E, contract_rows, preferred_element_type=jnp.float32
    )


class _Form(NamedTuple):
    """A way to multiply padded rows.

    Attributes:
        product: (x_PD, w_EDF, layout) -> float32 [P, F].
        weight_gradient: (x_PD, dy_PF, layout) -> float32 [E, D, F].
    """

    product: Callable[[jax.Array, jax.Array, _Layout], jax.Array]
    weight_gradient: Callable[[jax.Array, jax.Array, _Layout], jax.Array]


_FORMS = {
    "scan": _Form(_scan_product, _scan_gradient),
    "batched": _Form(_batched_product, _batched_gradient),
    "ragged": _Form(_ragged_product, _ragged_gradient),
}
