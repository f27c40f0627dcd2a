"""Laws of the features that only heads read: late features and the display position."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from ligr_jax.config import ConfigError, Feature, HeadConfig, ModelConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.post_row import require_post_row
from ligr_jax.nn.head_inputs import HeadInputs
from ligr_jax.nn.heads import Heads
from ligr_jax.nn.models import make_model
from ligr_jax.ops.losses import binary_cross_entropy
from tests.batches import FEED_SR, HEAD_FEATURES, model_config, random_batch, with_head_features
from tests.nn.models import random_params
from tests.nn.test_experts import disturbed, experts, network

pytestmark = pytest.mark.usefixtures("quick_keys")

KINDS: dict[str, dict[str, Any]] = {
    "ligr": {"set_depth": 1, "head": FEED_SR},
    "hstu": {"kind": "hstu", "set_depth": 0, "head": HeadConfig("mlp", widths=(4,))},
    "ligr_streams": {"kind": "ligr_streams", "set_depth": 0},
    "wukong": {"kind": "wukong", "set_depth": 0, "head": HeadConfig(cross_layers=1)},
}
N = 7


def config_of(kind: str) -> ModelConfig:
    return model_config(unroll="no", depth=1, features=HEAD_FEATURES, **KINDS[kind])


@pytest.fixture(scope="module")
def batch() -> Batch:
    return with_head_features(random_batch([[[2, 1], [1, 2]], [[1, 3]]], N))


def normed(p: Any, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-6)
    result: np.ndarray = scaled * p["scale"] + p["bias"]
    return result


def test_feed_srs_head_equals_its_equations_with_an_output_layer_per_position() -> None:
    config = config_of("ligr")
    rng = np.random.default_rng(0)
    h = rng.normal(size=(2, 3, config.width)).astype(np.float32)
    late = rng.normal(size=(2, 3, 7)).astype(np.float32)
    post = rng.integers(0, 4, (2, 3))
    head, args = Heads(config), (h, True, HeadInputs(late, jnp.asarray(post)))
    p = disturbed(head.init(jax.random.key(0), *args)["params"])
    ours = np.asarray(head.apply({"params": p}, *args))

    x = normed(p["norm"], np.concatenate([h, late], -1))
    mixed = p["mmoe"]["gates"]["kernel"]
    weights = softmax((x @ mixed).reshape(2, 3, 3, 3), axis=-1)
    tasks = np.einsum("...TE,...EF->...TF", weights, experts(p["mmoe"]["experts"]["networks"], x))
    x0 = np.concatenate([normed(p["cross_norm"], h), late], -1)
    crossed = x0
    for i in range(2):
        w = p[f"cross_{i}"]
        crossed = x0 * (crossed @ w["v"]["kernel"] @ w["u"]["kernel"] + w["u"]["bias"]) + crossed
    of_cross = crossed @ p["cross_logits"]["kernel"] + p["cross_logits"]["bias"]
    for a in range(3):
        tower = network(p["towers"][f"tower_{a}"], tasks[..., a, :])
        last = p["towers"][f"logits_{a}"]
        wanted = tower @ last["kernel"] + last["bias"] + of_cross.reshape(2, 3, 3, 4)[..., a, :]
        chosen = np.take_along_axis(wanted, post[..., None], -1)[..., 0]
        np.testing.assert_allclose(ours[..., a], chosen, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_or_post_feature_reaches_the_logits_of_its_own_impression_alone(
    kind: str, batch: Batch
) -> None:
    """The Jacobian to late features of other impressions, and what another display position
    changes elsewhere, are exactly zero; a member alone has the logits that it has when packed."""
    config = config_of(kind)
    params = random_params(config, batch)
    apply = jax.jit(make_model(config).apply)

    def combined(price: jax.Array) -> jax.Array:
        z = apply({"params": params}, batch._replace(numeric={**batch.numeric, "price": price}))
        return jnp.asarray(z @ jnp.asarray([1.0, -0.7, 0.3]))

    real = batch.member > 0
    price = jnp.where(real, jnp.nan_to_num(batch.numeric["price"]), 0.1)
    reached = np.asarray(jax.jit(jax.jacfwd(combined))(price)) != 0
    own = np.eye(real.size, dtype=bool).reshape(reached.shape)
    np.testing.assert_array_equal(reached[own], True)
    assert not reached[~own].any()

    before = np.asarray(apply({"params": params}, batch))
    position = batch.ids["position"].copy()
    position[0, 1] = (position[0, 1] + 1) % 4
    moved = batch._replace(ids={**batch.ids, "position": position})
    differs = (np.asarray(apply({"params": params}, moved)) != before).any(-1)
    np.testing.assert_array_equal(np.argwhere(differs), [[0, 1]])

    second = np.flatnonzero(batch.member[0] == 2)
    index = np.pad(second, (0, N - len(second)), constant_values=N - 1)
    alone = jax.tree.map(lambda x: np.asarray(x)[[0, 0]][:, index], batch)
    alone = alone._replace(member=(alone.member > 0).astype(np.int32))
    ours = np.asarray(apply({"params": params}, alone))[0, : len(second)]
    np.testing.assert_allclose(ours, before[0, second], atol=1e-4)


def test_an_output_layer_trains_on_the_impressions_shown_at_its_position_alone(
    batch: Batch,
) -> None:
    """Impressions without a position have an output layer of their own, of row 0."""
    config = model_config(unroll="no", depth=1, set_depth=0, features=HEAD_FEATURES)
    params = random_params(config, batch)
    position = np.where(batch.member > 0, 1 + 2 * (np.arange(N) % 2), 0)

    def loss(p: Any, position: np.ndarray) -> jax.Array:
        at = batch._replace(ids={**batch.ids, "position": position})
        z = make_model(config).apply({"params": p}, at)
        return binary_cross_entropy(jnp.asarray(z), batch.labels, batch.weight)[0].sum()

    gradient = jax.jit(jax.grad(loss))
    for shown, trained in ((position, [1, 3]), (np.zeros_like(position), [0])):
        kernel = np.asarray(gradient(params, shown)["heads"]["logits"]["kernel"])
        by_row = (kernel.reshape(-1, 3, 4) != 0).any((0, 1))
        np.testing.assert_array_equal(np.flatnonzero(by_row), trained)


def test_heads_refuse_to_be_called_without_the_features_that_the_model_declares() -> None:
    with pytest.raises(ValueError, match="no late and post features"):
        Heads(config_of("ligr")).init(jax.random.key(0), jnp.zeros((1, 1, 16)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Feature("bucket", post=True, outcome=True), "outcome=true and post=true exclude"),
        (lambda: Feature("numeric", post=True), "post=true needs kind=bucket or categorical"),
        (lambda: Feature(rows=1000, post=True), "at most 256 rows"),
        (lambda: Feature(rows=9, table="item_id", post=True), "has no table"),
        (lambda: Feature("bucket", edges=(5.0, 2.0)), "edges=5.0,2.0 .* increase"),
        (lambda: Feature("numeric", edges=(5.0,)), "only bucket"),
        (
            lambda: model_config(features=HEAD_FEATURES | {"slot": Feature(rows=4, post=True)}),
            "position,slot have post=true",
        ),
        (
            lambda: model_config(features=HEAD_FEATURES, parametrization="mup"),
            "late=true has no rules",
        ),
        (
            lambda: model_config(kind="lirank", features=HEAD_FEATURES),
            "model.kind=lirank has no heads",
        ),
        (lambda: HeadConfig(cross_layers=-1), "cross_layers=-1 must be >= 0"),
        (
            lambda: require_post_row(model_config(features=HEAD_FEATURES), 4, "eval.position", 0),
            "eval.position=4: the post feature 'position' .* choose one of 0..3",
        ),
    ],
)
def test_impossible_features_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
