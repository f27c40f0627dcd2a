"""Laws of LiGR and its rivals: which tokens can affect a logit, through stacks of layers."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from ligr_jax.config import ModelConfig, WukongConfig
from ligr_jax.data.batch import Batch
from ligr_jax.ops.attention import blocked
from tests.batches import model_config, random_batch
from tests.nn.models import logits, random_params, token_jacobian, value_and_gradient

pytestmark = pytest.mark.slow

N = 12
PACKED = [[[2, 3, 1], [1, 2]], [[3, 1, 2, 2]], []]  # two members, one member, an empty row
VARIANTS = {
    "default": {},
    "silu": {"attention": "silu", "ffn": "swiglu", "position": "relative_session"},
    "sigmoid": {"attention": "sigmoid", "gate": "none", "position": "relative_time"},
    "action tokens with their item": {"action_token": "actions_and_item"},
    "blocked": {"implementation": "blocked"},
    "gpu": {"implementation": "gpu"},
    "tpu": {"implementation": "tpu"},
    "blocked silu": {
        "implementation": "blocked",
        "attention": "silu",
        "position": "relative_session",
    },
    "hstu": {"kind": "hstu", "position": "relative_time"},
    "wukong": {"kind": "wukong", "set_depth": 0},
    "wukong, dual path": {
        "kind": "wukong",
        "set_depth": 0,
        "wukong": WukongConfig(dual_path=True),
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


def reach(config: ModelConfig, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return |d logit / d item token| and |d logit / d action token|, [B, N, B, N] each."""
    jacobian = token_jacobian(config, random_params(config, batch), batch)
    items, actions = (np.abs(np.asarray(j)).sum(-1) for j in jacobian)
    return items, actions


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
    """The Jacobian is non-zero for exactly the actions of the member's earlier sessions."""
    config = scanned(**variant)
    items, actions = reach(config, batch)
    related, before, same = pairs(batch)
    np.testing.assert_array_equal(actions > 0, related & (before > 0))
    # Items of one session are served together: set-wise layers connect them in both directions.
    own = before == 0 if config.set_depth else same
    real = (batch.member > 0)[..., None, None]
    np.testing.assert_array_equal((items > 0) & real, related & ((before > 0) | own))


@pytest.mark.parametrize("kind", ["ligr", "wukong"])
def test_a_label_that_becomes_known_late_reaches_no_logit(batch: Batch, kind: str) -> None:
    config = scanned(
        kind=kind, depth=1, set_depth=int(kind == "ligr"), late_actions=("like", "absent")
    )
    params = random_params(config, batch)
    changed = {}
    for a, action in enumerate(config.actions):
        labels = batch.labels.copy()
        labels[..., a] = np.where(labels[..., a] == 1, 0, 1)
        other = batch._replace(labels=labels)
        changed[action] = np.asarray(logits(config, params, other) != logits(config, params, batch))
    assert not changed["like"].any()
    # The other labels reach logits of all actions, the late one included.
    assert changed["click"].any(axis=(0, 1)).all()
    assert changed["share"].any(axis=(0, 1)).all()


@pytest.mark.parametrize("kind", ["ligr", "hstu"])
def test_without_setwise_layers_an_item_sees_no_other_of_its_session(
    batch: Batch, kind: str
) -> None:
    items, actions = reach(scanned(kind=kind, set_depth=0), batch)
    related, before, same = pairs(batch)
    real = (batch.member > 0)[..., None, None]
    np.testing.assert_array_equal((items > 0) & real, related & ((before > 0) | same))
    np.testing.assert_array_equal(actions > 0, related & (before > 0))


@pytest.mark.parametrize(
    "shape", [{}, {"kind": "hstu"}, {"kind": "wukong", "set_depth": 0}], ids=str
)
def test_a_lag_of_one_session_hides_the_newest(batch: Batch, shape: dict[str, object]) -> None:
    config = scanned(mask="session_lag", **shape)
    items, actions = reach(config, batch)
    related, before, same = pairs(batch)
    own = before == 0 if config.set_depth else same
    real = (batch.member > 0)[..., None, None]
    np.testing.assert_array_equal(actions > 0, related & (before > 1))
    np.testing.assert_array_equal((items > 0) & real, related & ((before > 1) | own))


def test_the_plain_causal_mask_leaks_actions_of_the_same_session(batch: Batch) -> None:
    _, actions = reach(scanned(mask="causal", set_depth=0), batch)
    related, _, _ = pairs(batch)
    position = np.arange(N)
    np.testing.assert_array_equal(
        actions > 0, related & (position[:, None, None] > position[None, None, :])
    )
    # With set-wise layers over such a history, even an item's own action affects its logit.
    _, actions = reach(scanned(mask="causal"), batch)
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


@pytest.mark.parametrize(
    "variant",
    [
        *({"implementation": i} for i in ("dense", "blocked", "gpu", "tpu")),
        {"kind": "hstu"},
        {"kind": "wukong", "set_depth": 0},
    ],
    ids=lambda variant: "-".join(map(str, variant.values())),
)
@pytest.mark.parametrize("mask", ["session", "causal"])
def test_logits_do_not_depend_on_the_future_in_any_bit(
    batch: Batch, mask: str, variant: dict[str, object]
) -> None:
    config = scanned(mask=mask, **variant)
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
    assert all(same) == (mask == "session")


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
        # The member alone, in a longer row: without its neighbors, and with more padding.
        index = np.pad(own, (0, 2 * N - len(own)))
        real = np.arange(2 * N) < len(own)
        alone = jax.tree.map(lambda x, index=(row, index): np.asarray(x)[index][None], batch)
        alone = alone._replace(member=real[None].astype(np.int32), session=alone.session * real)
        ours = np.asarray(logits(config, params, alone))[0, : len(own)]
        np.testing.assert_allclose(ours, packed[row, own], atol=2e-4)


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
    empty = random_batch([[[1]], [], [[4], [2]]], 6, unknown=0.5)
    config = scanned(dtype=dtype, **VARIANTS[name])
    (value, z), gradients = value_and_gradient(config, random_params(config, empty), empty)
    assert np.isfinite(value)
    assert np.isfinite(z).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
