"""A random generator whose programs compile three times as fast as those of Threefry.

Threefry is a loop in each draw, and most of the time to compile an initialization is theirs. This
generator mixes a counter with the key (a hash by C. Wellons, "lowbias32"), which fuses into the
draw. Its numbers are good enough for initial parameters and dropout.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import define_prng_impl


def _mix(x: jax.Array) -> jax.Array:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * np.uint32(factor)
    return x ^ (x >> 16)


def _seed(seed: jax.Array) -> jax.Array:
    return _mix(jnp.stack([seed.astype(jnp.uint32), jnp.uint32(1)]))


def _draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    count = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return _mix(_mix(count + key[0]) + key[1])


def _bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    assert bit_width == 32
    return _draw(key, shape)


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return _draw(key, (*shape, 2))


def _fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    return _mix(_mix(key + data.astype(jnp.uint32)) + jnp.array([0, 1], jnp.uint32))


QUICK = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_bits,
    fold_in=_fold_in,
    name="quick",
    tag="quick",
)


@contextmanager
def quick_keys() -> Iterator[None]:
    """Make `jax.random.key` and `wrap_key_data` return keys of this generator."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("key", "wrap_key_data"):
            patch.setattr(jax.random, name, partial(getattr(jax.random, name), impl=QUICK))
        yield
