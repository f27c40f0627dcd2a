"""Laws of LiGR and its rivals: which tokens can affect a logit, through stacks of layers."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from ligr_jax.config import LiRankConfig, ModelConfig, WukongConfig
from ligr_jax.data.batch import Batch
from ligr_jax.ops.attention import blocked
from tests.batches import model_config, random_batch
from tests.nn.models import Reach, logits, random_params, reach, value_and_gradient

pytestmark = pytest.mark.slow

N = 12
PACKED = [[[2, 3, 1], [1, 2]], [[3, 1, 2, 2]], []]  # two members, one member, an empty row
VARIANTS = {  # every value of each option of `ModelConfig` that changes the layers
    "default": {},
    "silu": {"attention": "silu", "ffn": "swiglu", "position": "relative_session"},
    "sigmoid": {"attention": "sigmoid", "gate": "none", "position": "relative_time"},
    "action tokens with their item": {
        "action_token": "actions_and_item",
        "ffn": "none",
        "position": "none",
    },
    "gates of attention": {"gate": "cadet", "ffn": "none"},
    "actions as values": {"actions_as": "values", "position": "relative_session", "depth": 2},
    "late action values": {"actions_as": "late_values", "attention": "silu", "depth": 1},
    "hstu": {"kind": "hstu", "position": "relative_time"},
    "wukong": {"kind": "wukong", "set_depth": 0},
    "wukong, dual path": {
        "kind": "wukong",
        "set_depth": 0,
        "wukong": WukongConfig(dual_path=True),
    },
}
# They equal the dense form in values and gradients, and let no NaN through (tests/ops).
KERNELS = {
    "blocked": {"implementation": "blocked"},
    "gpu": {"implementation": "gpu"},
    "tpu": {"implementation": "tpu"},
    "blocked silu": {
        "implementation": "blocked",
        "attention": "silu",
        "position": "relative_session",
    },
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use small tiles, so that the short rows of these tests cross the borders of tiles."""
    monkeypatch.setattr(blocked, "HISTORY_TILES", blocked.Tiles(8, 6))
    monkeypatch.setattr(blocked, "SESSION_TILES", blocked.Tiles(5, 4))


def scanned(**changes: object) -> ModelConfig:
    return model_config(unroll="no", **changes)  # compiles fastest


@pytest.fixture(scope="module")
def batch() -> Batch:
    return random_batch(PACKED, N, unknown=0.1)


def reached(config: ModelConfig, batch: Batch) -> Reach:
    return reach(config, random_params(config, batch), batch)


def pairs(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three relations between impressions (first, second), [B, N, B, N] each.

    Whether both are real and of the same member; by how many sessions the second is earlier than
    the first; whether they are the same impression.
    """
    b, n = batch.member.shape
    row = np.arange(b)[:, None].repeat(n, 1)
    member, session = row * 100 + batch.member, batch.session
    first = (..., None, None)
    related = (member[first] == member) & (batch.member > 0)[first] & (batch.member > 0)
    return related, session[first] - session, np.eye(b * n, dtype=bool).reshape(b, n, b, n)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_no_action_reaches_a_logit_of_its_own_or_an_earlier_session(
    batch: Batch, variant: dict[str, object]
) -> None:
    """The Jacobian is non-zero for exactly the actions of the member's earlier sessions, and for
    every parameter."""
    config = scanned(**variant)
    _, items, actions, params = reached(config, batch)
    related, before, same = pairs(batch)
    np.testing.assert_array_equal(actions > 0, related & (before > 0))
    # Items of one session are served together: set-wise layers connect them in both directions.
    own = before == 0 if config.set_depth else same
    real = (batch.member > 0)[..., None, None]
    np.testing.assert_array_equal((items > 0) & real, related & ((before > 0) | own))
    assert all(np.any(p) for p in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "shape",
    [
        {"depth": 1, "set_depth": 1},
        {"kind": "wukong", "depth": 1, "set_depth": 0},
        {"kind": "lirank", "lirank": LiRankConfig("jobs", rank=3, batch_norm=False, history=6)},
    ],
    ids=["ligr", "wukong", "lirank"],
)
def test_a_label_that_becomes_known_late_reaches_no_logit(
    batch: Batch, shape: dict[str, object]
) -> None:
    config = scanned(**shape, late_actions=("like", "absent"))
    params = random_params(config, batch)
    changed = {}
    for a, action in enumerate(config.actions):
        labels = batch.labels.copy()
        labels[..., a] = np.where(labels[..., a] == 1, 0, 1)
        other = batch._replace(labels=labels)
        z, other_z = (np.asarray(logits(config, params, b)) for b in (batch, other))
        changed[action] = other_z != z
    assert not changed["like"].any()
    # The other labels reach logits of all actions, the late one included.
    assert changed["click"].any(axis=(0, 1)).all()
    assert changed["share"].any(axis=(0, 1)).all()


def test_without_setwise_layers_an_item_sees_no_other_of_its_session(batch: Batch) -> None:
    _, items, actions, _ = reached(scanned(set_depth=0), batch)
    related, before, same = pairs(batch)
    real = (batch.member > 0)[..., None, None]
    np.testing.assert_array_equal((items > 0) & real, related & ((before > 0) | same))
    np.testing.assert_array_equal(actions > 0, related & (before > 0))


@pytest.mark.parametrize("shape", [{}, {"kind": "wukong", "set_depth": 0}], ids=str)
def test_a_lag_of_one_session_hides_the_newest(batch: Batch, shape: dict[str, object]) -> None:
    config = scanned(mask="session_lag", **shape)
    _, items, actions, _ = reached(config, batch)
    related, before, same = pairs(batch)
    own = before == 0 if config.set_depth else same
    real = (batch.member > 0)[..., None, None]
    np.testing.assert_array_equal(actions > 0, related & (before > 1))
    np.testing.assert_array_equal((items > 0) & real, related & ((before > 1) | own))


def test_the_plain_causal_mask_leaks_actions_of_the_same_session(batch: Batch) -> None:
    actions = reached(scanned(mask="causal", set_depth=0), batch).actions
    related, _, _ = pairs(batch)
    position = np.arange(N)
    np.testing.assert_array_equal(
        actions > 0, related & (position[:, None, None] > position[None, None, :])
    )
    # With set-wise layers over such a history, even an item's own action affects its logit.
    actions = reached(scanned(mask="causal"), batch).actions
    own = np.einsum("BNBN->BN", actions)
    assert (own[0, [0, 2, 3]] > 0).all()


def altered(batch: Batch, session: int) -> Iterator[Batch]:
    """Yield batches with other actions from `session` on, and then also other later items."""
    rng = np.random.default_rng(1)
    answers, items = batch.session >= session, batch.session > session
    labels = np.where(answers[..., None], rng.integers(-1, 2, batch.labels.shape), batch.labels)
    dwell = np.where(answers, rng.integers(0, 5, answers.shape), batch.ids["dwell"])
    answered = batch._replace(labels=labels.astype(np.int8))
    yield answered._replace(ids={**batch.ids, "dwell": dwell.astype(np.int32)})
    other = rng.integers(0, 50, items.shape)
    vectors = np.where(items[..., None], rng.normal(size=(*items.shape, 3)), 0)
    yield answered._replace(
        ids={**batch.ids, "item_id": np.where(items, other, batch.ids["item_id"]).astype(np.int32)},
        numeric={"age": np.where(items, np.float32(0.3), batch.numeric["age"])},
        vectors={"content": np.where(items[..., None], vectors, batch.vectors["content"])},
    )


@pytest.mark.parametrize("name", [*VARIANTS, *KERNELS, "causal"])
def test_logits_do_not_depend_on_the_future_in_any_bit(batch: Batch, name: str) -> None:
    """Except under the causal mask, which shows that the test would see it."""
    config = scanned(**{**VARIANTS, **KERNELS, "causal": {"mask": "causal"}}[name])
    batch = jax.tree.map(lambda x: np.asarray(x), batch)
    params = random_params(config, batch)
    known = np.asarray(logits(config, params, batch))
    same = []
    for session in range(int(batch.session.max()) + 1):
        until = (batch.session <= session) & (batch.member > 0)
        for other in altered(batch, session):
            other = jax.tree.map(lambda x, old: np.asarray(x, old.dtype), other, batch)
            now = np.asarray(logits(config, params, other))
            same.append(np.array_equal(now[until], known[until]))
            assert not np.array_equal(now, known) or session == batch.session.max()
    assert all(same) == (name != "causal")


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_have_the_logits_of_the_dense_form(batch: Batch, name: str) -> None:
    config = scanned(**KERNELS[name])
    params = random_params(config, batch)
    dense = scanned(**{**KERNELS[name], "implementation": "dense"})
    expected = logits(dense, params, batch)
    np.testing.assert_allclose(logits(config, params, batch), expected, atol=2e-4)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_permuting_the_impressions_of_sessions_permutes_their_logits(
    batch: Batch, variant: dict[str, object]
) -> None:
    config = scanned(**variant)
    params = random_params(config, batch)
    rng = np.random.default_rng(0)
    keys = (rng.random(batch.member.shape), batch.session, np.where(batch.member, batch.member, 99))
    order = np.lexsort(keys, axis=1)
    assert (order != np.arange(N)).any()

    def permuted(x: np.ndarray) -> np.ndarray:
        return np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), 1)

    shuffled = logits(config, params, jax.tree.map(permuted, batch))
    np.testing.assert_allclose(shuffled, permuted(logits(config, params, batch)), atol=2e-4)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_a_member_packed_with_strangers_has_the_logits_it_has_alone(
    batch: Batch, variant: dict[str, object]
) -> None:
    config = scanned(**variant)
    params = random_params(config, batch)
    packed = np.asarray(logits(config, params, batch))
    for row, member in ((0, 1), (0, 2), (1, 1)):
        own = np.flatnonzero(batch.member[row] == member)
        # The member alone, at the start of every row.
        index = np.pad(own, (0, N - len(own)))
        real = np.arange(N) < len(own)
        alone = jax.tree.map(lambda x, index=(row, index): np.asarray(x)[index], batch)
        alone = alone._replace(member=real.astype(np.int32), session=alone.session * real)
        alone = jax.tree.map(lambda x: np.stack([x] * len(PACKED)), alone)
        ours = np.asarray(logits(config, params, alone))[:, : len(own)]
        np.testing.assert_allclose(ours, [packed[row, own]] * len(PACKED), atol=2e-4)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in VARIANTS),
        # LiGR's, and that of each attention kernel, is a law of test_variants.py and tests/ops.
        *((name, "bfloat16") for name in ("hstu", "wukong")),
    ],
)
def test_logits_and_gradients_are_finite_for_first_sessions_and_empty_rows(
    name: str, dtype: str
) -> None:
    empty = random_batch([[[1]], [], [[4], [2]]], N, unknown=0.5)
    config = scanned(dtype=dtype, **VARIANTS[name])
    # XLA has no product of vectors of bfloat16 on a CPU, which single logits would need.
    derivatives = reach if dtype == "float32" else value_and_gradient
    found = derivatives(config, random_params(config, empty), empty)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
