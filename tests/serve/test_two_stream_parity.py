"""Serving a two-stream model gives the logits of training: a cache in any cuts, one pass."""

from functools import partial

import jax
import numpy as np
import pytest

from ligr_jax.nn.models import make_model
from ligr_jax.serve import append_history, encode_history, score_candidates
from tests.batches import random_batch
from tests.nn.models import random_params
from tests.nn.two_stream_kinds import KINDS, two_stream_config
from tests.serve.test_parity import HISTORIES, LENGTHS, NEW, SET, SIZE, ZERO, candidates, cut

pytestmark = pytest.mark.usefixtures("quick_keys")


@pytest.mark.parametrize("name", KINDS)
def test_a_history_in_any_cuts_gives_the_logits_of_training(name: str) -> None:
    """Cuts are inside sessions as well; candidates do not depend on each other."""
    config = two_stream_config(name)
    model = make_model(config)
    rows = random_batch([[[*h, SET]] for h in HISTORIES], SIZE + SET, unknown=0.2)
    variables = {"params": random_params(config, rows, 0.1)}
    trained = np.asarray(jax.jit(model.apply)(variables, rows))
    wanted = np.stack([z[n : n + SET] for z, n in zip(trained, LENGTHS)])

    encode = jax.jit(partial(encode_history, model))
    append = jax.jit(partial(append_history, model))
    score = jax.jit(partial(score_candidates, model))
    asked = candidates(rows)
    rng = np.random.default_rng(0)
    for _ in range(3):
        stop = [int(rng.integers(0, n + 1)) for n in LENGTHS]
        cache = encode(variables, cut(rows, ZERO, stop, SIZE))
        while stop != LENGTHS:
            start = stop
            stop = [min(n, i + int(rng.integers(0, NEW + 1))) for i, n in zip(start, LENGTHS)]
            cache = append(variables, cache, cut(rows, start, stop, NEW))
        logits_BCA = np.asarray(score(variables, cache, asked).logits_BCA)
        np.testing.assert_allclose(logits_BCA, wanted, atol=2e-5, rtol=1e-4)

    order = [2, 0, 3, 1]
    shuffled = score(variables, cache, jax.tree.map(lambda x: x[:, order], asked)).logits_BCA
    np.testing.assert_array_equal(shuffled, logits_BCA[:, order])
