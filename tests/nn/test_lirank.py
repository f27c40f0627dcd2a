"""Laws of LiRank's rankers, and of the heads that every kind of model can have."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.config import ConfigError, HeadConfig, LiRankConfig, ModelConfig, override
from ligr_jax.config.run import Config
from ligr_jax.cost.flops import forward_flops
from ligr_jax.data.batch import Batch
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.nn.models import make_model
from ligr_jax.nn.work import Work
from ligr_jax.ops.grouped import FORM_OF_BACKEND
from tests.batches import ACTIONS, model_config, random_batch
from tests.cost.test_flops import products

pytestmark = pytest.mark.usefixtures("quick_keys")

N = 12
PACKED = [[[2, 3, 1], [1, 2]], [[3, 1, 2, 2]], []]
HISTORY = {"history": 6, "history_width": 4, "history_last": 3}
RATES = (0.3, 0.1, 0.02)
SMALL = {"rank": 3, **HISTORY}
CALIBRATED = {"calibration": True, "calibration_step": 1.0}
MLP = HeadConfig("mlp", widths=(7,), gated=True, **CALIBRATED)
FEATURED = dataclasses.replace(MLP, groups=("share+click", "like"), calibration_features=("tag",))
MMOE = HeadConfig("mmoe", widths=(6,), experts=3, expert_widths=(5,), gated=True)
PLE = HeadConfig("ple", widths=(), experts=2, expert_widths=(5, 4), levels=2)
RANKERS = {
    "feed": (
        LiRankConfig(wide="item_id", **SMALL),
        dataclasses.replace(MLP, calibration_features=("item_id",)),
    ),
    "feed, sparse experts": (LiRankConfig(mlp=(8,), experts=4, **SMALL), FEATURED),
    "feed, mmoe": (LiRankConfig(mlp=(9, 8), residual=False, **SMALL), MMOE),
    "feed, ple, no history": (LiRankConfig(history=0, rank=3), PLE),
    "ads": (LiRankConfig("ads", mlp=(8, 6), gated=False, **SMALL), MLP),
    "jobs": (LiRankConfig("jobs", residual=False, batch_norm=False, **SMALL), HeadConfig()),
}
HEADS = {"mlp": FEATURED, "mmoe": MMOE, "ple": PLE, "calibrated": HeadConfig(**CALIBRATED)}


def config_of(ranker: tuple[LiRankConfig, HeadConfig]) -> ModelConfig:
    lirank, head = ranker
    return model_config(kind="lirank", lirank=lirank, head=head, prior=RATES)


_compiled: dict[str, tuple[Any, Callable[..., Any]]] = {}


def ready(config: ModelConfig, batch: Batch) -> tuple[Any, Callable[..., Any]]:
    """Return initial variables and the jitted model, created once per configuration."""
    if repr(config) not in _compiled:
        model = make_model(config)
        init = jax.jit(model.init)
        apply = jax.jit(model.apply)
        _compiled[repr(config)] = (init(jax.random.key(0), batch), apply)
    return _compiled[repr(config)]


def noisy(config: ModelConfig, batch: Batch) -> tuple[Any, Callable[..., Any]]:
    """Return the same with noise added to the variables, so that none is zero."""
    fresh, apply = ready(config, batch)
    rng = np.random.default_rng(0)
    noise = jax.tree.map(lambda p: np.abs(rng.normal(size=p.shape)).astype(np.float32), fresh)
    return jax.tree.map(lambda p, e: np.asarray(p) + 0.2 * e, fresh, noise), apply


@pytest.fixture(scope="module")
def batch() -> Batch:
    return random_batch(PACKED, N, unknown=0.1)


@pytest.fixture(params=RANKERS.values(), ids=list(RANKERS))
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return config_of(request.param)


def test_logits_depend_only_on_the_impression_and_earlier_sessions(
    config: ModelConfig, batch: Batch
) -> None:
    """No bit of its logits depends on actions of its own or later sessions, other items of its own
    or later sessions, other members, or padding; earlier sessions do change its logits."""
    variables, apply = noisy(config, batch)
    known = np.asarray(apply(variables, batch))
    rng = np.random.default_rng(1)
    labels = rng.integers(-1, 2, batch.labels.shape).astype(np.int8)
    items = rng.integers(0, 50, batch.member.shape).astype(np.int32)
    dwell = rng.integers(0, 5, batch.member.shape).astype(np.int32)

    def changed(answers: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the logits with other actions and other items at the marked impressions."""
        ids = {
            "item_id": np.where(others, items, batch.ids["item_id"]),
            "dwell": np.where(answers, dwell, batch.ids["dwell"]),
        }
        answered = np.where(answers[..., None], labels, batch.labels)
        altered = batch._replace(labels=answered, ids={**batch.ids, **ids})
        return np.asarray(apply(variables, altered))

    reached = 0
    for r, i in np.argwhere(batch.member > 0):
        earlier, itself = np.zeros((2, *batch.member.shape), bool)
        mine = batch.member[r] == batch.member[r, i]
        earlier[r] = mine & (batch.session[r] < batch.session[r, i])
        itself[r, i] = True
        unread = changed(~earlier, ~(earlier | itself))
        np.testing.assert_array_equal(unread[r, i], known[r, i])
        read = changed(earlier, earlier)
        moved = (read[r, i] != known[r, i]).any()
        assert not moved or (earlier.any() and config.lirank.history)
        reached += moved
    assert (reached > 0) == (config.lirank.history > 0)


def test_a_member_packed_with_strangers_has_the_logits_it_has_alone(
    config: ModelConfig, batch: Batch
) -> None:
    variables, apply = noisy(config, batch)
    packed = np.asarray(apply(variables, batch))
    for row, member in ((0, 1), (0, 2), (1, 1)):
        own = np.flatnonzero(batch.member[row] == member)
        index = np.pad(own, (0, N - len(own)))
        real = np.arange(N) < len(own)
        alone = jax.tree.map(lambda x, index=(row, index): np.asarray(x)[index][None], batch)
        alone = alone._replace(member=real[None].astype(np.int32), session=alone.session * real)
        alone = jax.tree.map(lambda x: np.repeat(x, 3, 0), alone)
        ours = np.asarray(apply(variables, alone))[0, : len(own)]
        np.testing.assert_allclose(ours, packed[row, own], atol=2e-4)


def test_effects_of_an_item_are_added_to_its_logits_and_start_as_zero(batch: Batch) -> None:
    config = config_of((LiRankConfig(wide="item_id", **SMALL), HeadConfig()))
    fresh, apply = ready(config, batch)
    table = np.asarray(fresh["params"]["tables"]["item_id"])
    effects = np.zeros_like(table)
    effects[:, -len(ACTIONS) :] = np.random.default_rng(0).normal(size=(len(table), len(ACTIONS)))
    assert not (table * (effects != 0)).any()
    tables = {**fresh["params"]["tables"], "item_id": table + effects}
    raised = {**fresh, "params": {**fresh["params"], "tables": tables}}
    expected = effects[batch.ids["item_id"], -len(ACTIONS) :]
    np.testing.assert_allclose(apply(raised, batch) - apply(fresh, batch), expected, atol=1e-5)


def test_initial_logits_are_base_rates_and_every_parameter_has_a_gradient(
    config: ModelConfig, batch: Batch
) -> None:
    fresh, apply = ready(config, batch)
    rates = 1 / (1 + np.exp(-np.asarray(apply(fresh, batch))))
    np.testing.assert_allclose(rates, np.broadcast_to(RATES, rates.shape), rtol=1e-3)
    model = make_model(config)

    def loss(params: Any, stats: Any) -> jax.Array:
        rngs = {"dropout": jax.random.key(1)}
        z, left = model.apply({"params": params, **stats}, batch, False, rngs=rngs, mutable=True)
        return jnp.sum(z**2) + sum(jax.tree.leaves(left.get("losses", {})))

    variables = dict(noisy(config, batch)[0])
    params = variables.pop("params")
    gradient = jax.device_get(jax.jit(jax.grad(loss))(params, variables))
    for path, g in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(g).all(), path
        read = config.lirank.history or "dwell" not in jax.tree_util.keystr(path)
        assert np.any(g) == bool(read), path


MODELS = {
    **{name: config_of(ranker) for name, ranker in RANKERS.items()},
    **{f"ligr, {name}": model_config(head=head, unroll="yes") for name, head in HEADS.items()},
    "wukong, mmoe": model_config(kind="wukong", set_depth=0, unroll="yes", head=MMOE),
}


@pytest.mark.parametrize("name", MODELS)
def test_forward_count_is_every_matrix_product_of_the_traced_model(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORM_OF_BACKEND, "cpu", "ragged")  # padding of other forms does not count
    config, n = MODELS[name], 8
    batch = random_batch([[[n]]] * 2, n)
    model = make_model(config)
    variables = jax.eval_shape(model.init, jax.random.key(0), batch)
    traced = jax.make_jaxpr(lambda v: model.apply(v, batch))(variables)
    work = Work(2 * n, 2 * (2 * n) ** 2, 2 * n**2)
    assert sum(products(traced.jaxpr)) == sum(forward_flops(config, work).values())


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_float32_whatever_the_activations(name: str, batch: Batch) -> None:
    model = make_model(dataclasses.replace(MODELS[name], dtype="bfloat16"))
    variables = jax.eval_shape(model.init, jax.random.key(0), batch)
    logits = jax.eval_shape(model.apply, variables, batch)
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("head", HEADS.values(), ids=list(HEADS))
def test_heads_serve_ligr_too(head: HeadConfig, batch: Batch) -> None:
    """Initial logits are base rates; with noisy parameters, all logits differ."""
    config = model_config(head=head, prior=RATES, depth=0, set_depth=1, unroll="no")
    fresh, apply = ready(config, batch)
    rates = 1 / (1 + np.exp(-np.asarray(apply(fresh, batch))))
    np.testing.assert_allclose(rates, np.broadcast_to(RATES, rates.shape), rtol=1e-3)
    variables, apply = noisy(config, batch)
    real = np.asarray(apply(variables, batch))[batch.member > 0]
    assert len(np.unique(real)) == real.size


def test_statistics_change_only_in_training(batch: Batch) -> None:
    config = config_of(RANKERS["feed"])
    model, (fresh, _) = make_model(config), ready(config, batch)

    @jax.jit
    def both(variables: Any) -> tuple[Any, Any]:
        rngs = {"dropout": jax.random.key(0)}
        trained = model.apply(variables, batch, False, rngs=rngs, mutable=[STATISTICS])
        return trained[1], model.apply(variables, batch, mutable=[STATISTICS])[1]

    left, same = both(fresh)
    age = batch.numeric["age"][batch.member > 0]
    expected = 0.01 * age.mean()
    np.testing.assert_allclose(left[STATISTICS]["batch_norm"]["mean"], expected, rtol=1e-4)
    assert float(same[STATISTICS]["batch_norm"]["mean"][0]) == 0


def test_feed_groups_clicks_and_contributions_by_name() -> None:
    actions = ("like", "click", "comment", "long_dwell")
    groups = {"feed": ((1, 3), (0, 2)), "jobs": ((0,), (1,), (2,), (3,))}
    for variant, expected in groups.items():
        config = ModelConfig(actions=actions, kind="lirank", lirank=LiRankConfig(variant))
        assert config.groups == expected


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["model.head.groups=click+like"],
            "must contain each of model.actions=click,like,share once",
        ),
        (["model.lirank.variant=ads"], "set model.lirank.mlp, e.g. to 128,128"),
        (["model.lirank.variant=jobs", "model.head.kind=ple"], "no shared "),
        (["model.lirank.variant=jobs", "model.lirank.mlp=8"], "hidden layers only in its towers"),
        (
            ["model.lirank.experts=2", "model.lirank.mlp=8", "model.lirank.chosen=3"],
            "chosen=3 must be",
        ),
        (["model.lirank.wide=age"], "wide=age is not an item feature with a table"),
        (
            ["model.lirank.wide=item_id", "model.features.tag.table=item_id"],
            "tag shares the table .* use its effects as an embedding",
        ),
        (["model.lirank.history=4"], "history_last=5 must be in 0..model.lirank.history=4"),
        (["model.parametrization=mup"], "no rules for model.kind=lirank"),
        (["model.head.calibration_features=tag"], "model.head.calibration=false; set it to true"),
    ],
)
def test_contradictory_configurations_are_refused(assignments: list[str], message: str) -> None:
    start = Config(model=model_config(actions=ACTIONS))
    with pytest.raises(ConfigError, match=message):
        override(start, ["model.kind=lirank", *assignments])
