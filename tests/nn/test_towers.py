"""Laws of towers: each computes the logits of its group, in the common order of actions."""

import jax
import numpy as np
import pytest

from ligr_jax.nn.towers import Towers, log_odds

X = np.random.default_rng(0).normal(size=(2, 3, 6)).astype(np.float32)
RATES = (0.1, 0.4, 0.02, 0.3)


def test_initial_towers_give_base_rates_in_the_order_of_actions() -> None:
    towers = Towers(((2, 0), (3, 1)), log_odds(RATES), widths=(5,), gated=True)
    logits = towers.apply(towers.init(jax.random.key(0), (X, X)), (X, X))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), np.broadcast_to(RATES, (2, 3, 4)), 1e-5)


def test_a_tower_does_not_depend_on_the_input_of_another_group() -> None:
    towers = Towers(((2, 0), (3, 1)), log_odds(RATES), widths=(5,))
    params = jax.tree.map(lambda p: p + 0.1, towers.init(jax.random.key(0), (X, X)))
    jacobian = jax.jacrev(lambda first, second: towers.apply(params, (first, second))[0, 0], (0, 1))
    first, second = (np.abs(np.asarray(j)).sum((1, 2, 3)) > 0 for j in jacobian(X, X))
    np.testing.assert_array_equal(first, [True, False, True, False])
    np.testing.assert_array_equal(second, [False, True, False, True])


@pytest.mark.parametrize("groups", [((0, 1), (1, 2, 3)), ((0, 1), (2,))])
def test_groups_must_hold_every_action_once(groups: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="must hold each of 4 actions"):
        Towers(groups, log_odds(RATES)).init(jax.random.key(0), (X, X))
