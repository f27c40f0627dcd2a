"""Laws of every two-stream model: which tokens can affect a logit, through stacks of layers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.config import ConfigError, Feature, ModelConfig, TwoStreamConfig
from ligr_jax.data.batch import Batch
from ligr_jax.nn.candidate_tokens import CandidateTokens
from tests.batches import model_config, random_batch
from tests.nn.fixtures import Arrays, check, load_fixture
from tests.nn.models import logits, random_params, reach
from tests.nn.two_stream_kinds import KINDS, history_reach, two_stream_config

N = 12
PACKED = [[[2, 3, 1], [1, 2]], [[3, 1, 2, 2]], []]  # two members, one member, an empty row

pytestmark = pytest.mark.usefixtures("quick_keys")


@pytest.fixture(scope="module")
def batch() -> Batch:
    return random_batch(PACKED, N, unknown=0.1)


def related(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whether two impressions are of one member, by how many sessions the second is earlier,
    and by how many impressions it is earlier than the session of the first; [B, N, B, N]."""
    b, n = batch.member.shape
    member = np.arange(b)[:, None].repeat(n, 1) * 100 + batch.member
    session = member * 100 + batch.session
    start = (session[:, :, None] == session[:, None]).argmax(-1)
    first = (..., None, None)
    real = (batch.member > 0)[first] & (batch.member > 0)
    before = batch.session[first] - batch.session
    return (member[first] == member) & real, before, start[first] - np.arange(n)


@pytest.mark.parametrize("name", KINDS)
def test_a_logit_sees_its_own_item_and_everything_of_earlier_sessions(
    batch: Batch, name: str
) -> None:
    """The Jacobian is exactly zero for actions of the same and of later sessions, for items of
    other impressions of the session, for what windows hide, and for other members; and non-zero for
    every parameter."""
    config = two_stream_config(name)
    found = reach(config, random_params(config, batch), batch)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    same_member, before, distance = related(batch)
    seen = same_member & (before > 0) & (distance <= history_reach(config))
    itself = np.eye(before[..., 0, 0].size, dtype=bool).reshape(before.shape)
    real = (batch.member > 0)[..., None, None]
    np.testing.assert_array_equal(found.actions > 0, seen)
    np.testing.assert_array_equal((found.items > 0) & real, seen | (same_member & itself))
    assert all(np.any(p) for p in jax.tree.leaves(found.params))


@pytest.mark.parametrize("name", KINDS)
def test_one_pass_over_packed_rows_equals_each_session_alone(batch: Batch, name: str) -> None:
    """Each session after its member's earlier ones, at the start of a row; nothing follows it."""
    config = two_stream_config(name)
    params = random_params(config, batch)
    packed = np.asarray(logits(config, params, batch))
    alone, wanted = [], []
    for row, member in ((0, 1), (0, 2), (1, 1)):
        own = np.flatnonzero(batch.member[row] == member)
        for session in np.unique(batch.session[row, own]):
            until = own[batch.session[row, own] <= session]
            index = np.pad(until, (0, N - len(until)))
            real = np.arange(N) < len(until)
            part = jax.tree.map(lambda x, at=(row, index): np.asarray(x)[at], batch)
            alone.append(part._replace(member=real.astype(np.int32), session=part.session * real))
            scored = until[batch.session[row, until] == session]
            wanted.append((np.flatnonzero(np.isin(until, scored)), packed[row, scored]))
    rows = len(PACKED)
    for start in range(0, len(alone), rows):
        group = (alone[start:] + alone[:1] * rows)[:rows]
        stacked: Batch = jax.tree.map(lambda *x: np.stack(x), *group)
        ours = np.asarray(logits(config, params, stacked))
        for z, (position, expected) in zip(ours, wanted[start : start + rows]):
            np.testing.assert_allclose(z[position], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_permuting_the_candidates_of_a_session_permutes_their_logits(
    batch: Batch, name: str
) -> None:
    """The order of a member's last session, which no later session sees."""
    config = two_stream_config(name)
    params = random_params(config, batch)
    order = np.tile(np.arange(N), (len(PACKED), 1))
    order[1, 6:8] = [7, 6]

    def permuted(x: Any) -> np.ndarray:
        x = np.asarray(x)
        return np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), 1)

    shuffled = np.asarray(logits(config, params, jax.tree.map(permuted, batch)))
    np.testing.assert_allclose(shuffled, permuted(logits(config, params, batch)), atol=1e-5)


@pytest.mark.parametrize("tokenizer", ["auto", "groups", "chunk"])
def test_candidate_tokens_equal_their_equations(batch: Batch, tokenizer: Any) -> None:
    groups = ("item_id+age", "content", "tag") if tokenizer == "groups" else ()
    streams = TwoStreamConfig(3, tokenizer=tokenizer, groups=groups, normalize_tokens=True)
    config = two_stream_config("ligr", streams=streams)
    rng = np.random.default_rng(0)
    embedded = {
        name: rng.normal(size=(*batch.member.shape, width)).astype(np.float32)
        for name, width in (("item_id", 4), ("tag", 4))
    }
    module = CandidateTokens(config)
    params = jax.jit(module.init)(jax.random.key(0), batch, embedded)["params"]
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    ours = jax.jit(module.apply)({"params": params}, batch, embedded)

    age = batch.numeric["age"]
    parts = embedded | {
        "age": np.stack([np.nan_to_num(age), np.isnan(age)], -1),
        "content": batch.vectors["content"],
    }
    joined = np.concatenate([parts[n] for n in ("age", "content", "item_id", "tag")], -1)
    inputs = {
        "auto": [joined] * 3,
        "groups": [np.concatenate([parts[n] for n in g.split("+")], -1) for g in groups],
        "chunk": np.split(np.pad(joined, ((0, 0), (0, 0), (0, 2))), 3, axis=-1),
    }[tokenizer]
    for m, x in enumerate(inputs):
        p = params["all"] if tokenizer == "auto" else params[f"token_{m}"]
        part = slice(8 * m, 8 * m + 8) if tokenizer == "auto" else slice(None)
        y = x.astype(np.float64) @ p["kernel"][:, part] + p["bias"][part]
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
        y = y * params["gain"][m] + params["bias"][m]
        np.testing.assert_allclose(ours[:, :, m], y / (1 + np.exp(-y)), atol=2e-5)


def test_normalized_tokens_equal_those_of_a_public_code() -> None:
    """UniRank's tokenizers by chunks and of all features, with gradients."""
    fixture = load_fixture("tokenizers")
    c = fixture.config
    batch = random_batch([[[3]]], 3)
    features = {"x": Feature("vector", width=c["inputs"])}

    def tokens(inputs: Arrays, tokenizer: Any, count: int, params: Any) -> jax.Array:
        streams = TwoStreamConfig(count, tokenizer=tokenizer, normalize_tokens=True)
        config = two_stream_config("ligr", features=features, streams=streams)
        rows = batch._replace(vectors={"x": inputs["x"][None]})
        return CandidateTokens(config).apply({"params": params}, rows, {})[0]

    def fn(inputs: Arrays, p: Arrays) -> Arrays:
        def stacked(tokenizer: str, count: int, name: str, axis: int = 0) -> jax.Array:
            return jnp.stack([p[f"{tokenizer}{m}/{name}"] for m in range(count)], axis)

        def norms(tokenizer: str, count: int) -> Arrays:
            return {n: stacked(tokenizer, count, f"norm/{n}") for n in ("gain", "bias")}

        chunks, autos = c["chunk_tokens"], c["auto_tokens"]
        of_chunks = {
            f"token_{m}": {n: p[f"chunk{m}/{n}"] for n in ("kernel", "bias")} for m in range(chunks)
        }
        of_all = {
            "kernel": stacked("auto", autos, "kernel", axis=1).reshape(c["inputs"], -1),
            "bias": stacked("auto", autos, "bias").reshape(-1),
        }
        return {
            "chunk": tokens(inputs, "chunk", chunks, of_chunks | norms("chunk", chunks)),
            "auto": tokens(inputs, "auto", autos, {"all": of_all} | norms("auto", autos)),
        }

    check(fn, fixture)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"set_depth": 1}, r"has no set-wise layers.*set depth >= 1 and set_depth=0"),
        ({"attention": "silu"}, r"model.attention=silu"),
        (
            {"streams": TwoStreamConfig(1, tokenizer="groups", groups=("tag",))},
            "every item feature",
        ),
    ],
)
def test_what_does_not_apply_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        two_stream_config("ligr", **changes)


def test_groups_need_their_tokenizer_and_one_group_per_token() -> None:
    with pytest.raises(ConfigError, match="contradict"):
        TwoStreamConfig(groups=("a", "b"))
    streams = TwoStreamConfig(3, tokenizer="groups", groups=("a", "b"))
    with pytest.raises(ConfigError, match=r"2 groups for 3 of model.streams.tokens=3"):
        two_stream_config("ligr", streams=streams)


def test_the_mask_of_the_history_can_be_that_of_ligr(batch: Batch) -> None:
    """With `streams.history=session`, the order within earlier sessions has no effect either."""
    streams = TwoStreamConfig(tokens=2, history="session")
    config = two_stream_config("ligr", streams=streams)
    params = random_params(config, batch)
    order = np.tile(np.arange(N), (len(PACKED), 1))
    order[0, 2:5] = [4, 2, 3]

    def permuted(x: Any) -> np.ndarray:
        x = np.asarray(x)
        return np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), 1)

    shuffled = np.asarray(logits(config, params, jax.tree.map(permuted, batch)))
    np.testing.assert_allclose(shuffled, permuted(logits(config, params, batch)), atol=1e-5)
    causal: ModelConfig = two_stream_config("ligr")
    shuffled = np.asarray(logits(causal, params, jax.tree.map(permuted, batch)))
    assert np.abs(shuffled - permuted(logits(causal, params, batch))).max() > 1e-3


def test_a_model_without_item_features_has_no_candidate_tokens(batch: Batch) -> None:
    features = {"dwell": Feature("bucket", rows=5, outcome=True)}
    module = CandidateTokens(model_config(kind="ligr_streams", set_depth=0, features=features))
    with pytest.raises(ConfigError, match="declare at least one"):
        module.init(jax.random.key(0), batch, {})
