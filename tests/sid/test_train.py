"""Training: equal numbers after a kill, on any number of devices, and from the same seed."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.sid.config import SidConfig
from ligr_jax.sid.corpus import Corpus, open_corpus
from ligr_jax.sid.kmeans import kmeans, nearest_of, residual_kmeans
from ligr_jax.sid.measure import measure_codes
from ligr_jax.sid.model import SidModel, load_model
from ligr_jax.sid.train import METHODS, train_semantic_ids
from ligr_jax.sid.train_rqvae import RQVAETraining, State
from ligr_jax.train.loop import Preempted
from tests.sid.corpora import clusters, write_items
from tests.xla import flags

SMALL: dict[str, Any] = {"levels": 2, "codes": 8, "batch": 64, "latent": 3, "hidden": (16,)}
STEPS = {"rqvae": 12, "rqkmeans": 6}


def small(method: str, **changes: Any) -> SidConfig:
    return SidConfig(**{**SMALL, "method": method, "steps": STEPS[method], **changes})


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_items(tmp_path_factory.mktemp("items") / "items.parquet", clusters())


@pytest.fixture(scope="module")
def corpus(items: Path) -> Corpus:
    return open_corpus(items, "content")


@pytest.fixture(scope="module")
def whole(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SidModel]:
    """A model of each method, trained without interruption."""
    out = tmp_path_factory.mktemp("whole")
    return {m: train_semantic_ids(small(m), corpus, "content", out / m) for m in METHODS}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("signalled", [False, True])
def test_interrupted_training_ends_with_the_same_bits(
    corpus: Corpus,
    whole: dict[str, SidModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    signalled: bool,
    said: list[str],
) -> None:
    update = METHODS[method].update

    def interrupted(self: Any, number: int, state: Any) -> Any:
        if number == 5 and signalled:
            os.kill(os.getpid(), signal.SIGTERM)
        elif number == 5:
            raise KeyboardInterrupt
        return update(self, number, state)

    with monkeypatch.context() as patch:
        patch.setattr(METHODS[method], "update", interrupted)
        with pytest.raises(Preempted if signalled else KeyboardInterrupt):
            train_semantic_ids(small(method), corpus, "content", tmp_path, save_every_s=0)
    assert not (tmp_path / "model.json").exists()
    fresh = METHODS[method].fresh

    def shapes(self: Any) -> Any:
        state = fresh(self)
        assert all(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(state))
        return state

    said.clear()
    with monkeypatch.context() as patch:  # the start is not computed again
        patch.setattr(METHODS[method], "fresh", shapes)
        model = train_semantic_ids(small(method), corpus, "content", tmp_path)
    assert f"resuming at step {5 if signalled else 4}" in said[0]
    assert model.digest == whole[method].digest == load_model(tmp_path).digest
    assert train_semantic_ids(small(method), corpus, "content", tmp_path).digest == model.digest
    assert "nothing to do" in said[-1]


@pytest.mark.parametrize("method", METHODS)
def test_one_device_gives_the_numbers_of_eight(
    items: Path,
    whole: dict[str, SidModel],
    child_env: dict[str, str],
    tmp_path: Path,
    method: str,
) -> None:
    assert jax.device_count() == 8
    command = [sys.executable, "-m", "ligr_jax", "sid", "train", str(items)]
    command += ["--out", str(tmp_path), "--method", method]
    for name, value in {**SMALL, "hidden": "16", "steps": STEPS[method]}.items():
        command += [f"--{name}", str(value)]
    one = {"XLA_FLAGS": flags(devices=1), "LIGR_ALLOCATOR": "none"}
    subprocess.run(command, check=True, env={**child_env, **one}, capture_output=True)
    alone = load_model(tmp_path)
    assert alone.config == whole[method].config
    # All together: Adam divides by moments, and enlarges the rounding of a tiny gradient's.
    one_device, eight = (
        np.concatenate([m.arrays[name].ravel() for name in sorted(m.arrays)])
        for m in (alone, whole[method])
    )
    assert np.linalg.norm(one_device - eight) < 2e-4 * np.linalg.norm(eight)


def test_result_depends_on_the_seed(
    corpus: Corpus, whole: dict[str, SidModel], tmp_path: Path
) -> None:
    again = train_semantic_ids(small("rqvae"), corpus, "content", tmp_path / "again")
    other = train_semantic_ids(small("rqvae", seed=1), corpus, "content", tmp_path / "other")
    assert again.digest == whole["rqvae"].digest != other.digest


def test_training_lowers_the_error_and_keeps_all_codes_in_use(
    corpus: Corpus, whole: dict[str, SidModel], tmp_path: Path
) -> None:
    """From codebooks that k-means placed in untrained latents; 2 x 8 codes for twelve clusters."""
    longer = train_semantic_ids(small("rqvae", steps=400, rate=5e-3), corpus, "content", tmp_path)
    before, after = (measure_codes(m, corpus).quality for m in (whole["rqvae"], longer))
    assert after.error < 0.3 < before.error
    assert after.used == (1.0, 1.0)


def test_dead_code_is_reset_to_a_residual(corpus: Corpus) -> None:
    """A step moves it to a residual of its level and clears its moments."""
    mean, variance = corpus.moments()
    training = RQVAETraining(small("rqvae"), corpus, mean, float(np.sqrt(variance)))
    state = training.fresh()
    params = {**state.params, "codebooks": state.params["codebooks"].at[1, 3].set(1e3)}
    adam, *rest = state.opt_state
    mu, nu = (jax.tree.map(jnp.ones_like, params) for _ in range(2))  # the step donates both
    use = np.ones((2, 8), np.float32)
    use[1, 3] = 0.05
    out: Any = training.model.apply({"params": params}, training.batch(1))
    codes, residuals = np.asarray(out.quantized.codes), np.asarray(out.quantized.residuals)
    state = State(params, (adam._replace(mu=mu, nu=nu), *rest), jnp.asarray(use))
    new, metrics = training.update(1, training.put(state))
    assert metrics["reset"] == 1
    moved = np.asarray(new.params["codebooks"][1, 3])
    assert np.abs(residuals[1] - moved).max(1).min() < 1e-4
    dead = np.zeros((2, 8), bool)
    dead[1, 3] = True
    for moments in (new.opt_state[0].mu, new.opt_state[0].nu):
        np.testing.assert_array_equal((moments["codebooks"] == 0).all(-1), dead)
    share = np.stack([np.bincount(level, minlength=8) for level in codes.T]) / 64 * 8
    expected = np.where(dead, 1, 0.99 * use + 0.01 * share)
    np.testing.assert_allclose(new.usage, expected, rtol=1e-5)


def test_an_epoch_has_every_item_once_and_the_next_another_order(corpus: Corpus) -> None:
    training = RQVAETraining(small("rqvae"), corpus, np.zeros(corpus.width), 1.0)
    rows = np.concatenate([training.batch(number) for number in range(1, 20)])
    first, second = rows[:600], rows[600:1200]
    for epoch in (first, second):
        np.testing.assert_array_equal(np.unique(epoch, axis=0), np.unique(corpus.vectors, axis=0))
    assert (first != second).any(1).mean() > 0.9


def test_moments_and_error_equal_numpy(whole: dict[str, SidModel], corpus: Corpus) -> None:
    x = np.random.default_rng(0).standard_normal((40_000, 3)) + np.arange(40_000)[:, None] / 1e4
    mean, variance = Corpus(np.arange(40_000), x.astype(np.float32), "").moments()
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-6)
    assert variance == pytest.approx(x.var(0).mean(), rel=1e-6)
    model, x = whole["rqkmeans"], np.asarray(corpus.vectors, np.float64)
    found = measure_codes(model, corpus)
    books = model.arrays["codebooks"]
    x_hat = sum(book[code] for book, code in zip(books, found.codes.T))
    lost = x - (x_hat * model.arrays["scale"] + model.arrays["mean"])
    assert found.quality.error == pytest.approx((lost**2).sum() / ((x - x.mean(0)) ** 2).sum())


def test_lloyd_iteration_never_raises_the_error(corpus: Corpus) -> None:
    mean, variance = corpus.moments()
    training = METHODS["rqkmeans"](small("rqkmeans"), corpus, mean, float(np.sqrt(variance)))
    state, errors = training.fresh(), []
    for number in range(1, 2 * STEPS["rqkmeans"] + 1):
        state, metrics = training.update(number, state)
        assert int(metrics["empty"]) == 0
        errors.append(float(metrics["error"]))
    assert errors[0] < 1
    assert (np.diff(errors) < 1e-6).all()  # the second level begins where the first ends


@pytest.mark.parametrize("rows", [300, 5_000])  # of one block, and of a block and a part
def test_kmeans_ends_where_every_centroid_is_the_mean_of_its_rows(rows: int) -> None:
    x = clusters(rows, 2)
    found = np.asarray(kmeans(jnp.asarray(x), 5, jax.random.key(0), iterations=50))
    nearest = ((x[:, None] - found) ** 2).sum(2).argmin(1)
    for k in range(5):
        np.testing.assert_allclose(x[nearest == k].mean(0), found[k], rtol=1e-4, atol=1e-4)


def test_level_clusters_the_residuals_of_the_level_before() -> None:
    left, errors = jnp.asarray(clusters(300, 2)), []
    for book in residual_kmeans(left, 2, 5, jax.random.key(0)):
        left = left - book[nearest_of(left, book)]
        errors.append(float((left**2).sum()))
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("method", METHODS)
def test_fewer_items_than_codes(tmp_path: Path, method: str) -> None:
    few = open_corpus(write_items(tmp_path / "items.parquet", clusters(5)), "content")
    found = measure_codes(
        train_semantic_ids(small(method), few, "content", tmp_path / "model"), few
    ).quality
    assert (found.items, found.unique) == (5, 1.0)
    assert max(found.used) <= 5 / 8
    assert method == "rqvae" or abs(found.error) < 1e-9


def test_another_training_in_the_directory_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    train_semantic_ids(small("rqkmeans", steps=1), corpus, "content", tmp_path)
    with pytest.raises(BadInput, match="codes: there 8, asked 9"):
        train_semantic_ids(small("rqkmeans", steps=1, codes=9), corpus, "content", tmp_path)
    (run := tmp_path / "run").mkdir()
    (run / "metrics.jsonl").write_text("what it measured")
    with pytest.raises(BadInput, match="holds something else"):
        train_semantic_ids(small("rqkmeans", steps=1), corpus, "content", run)
    assert (run / "metrics.jsonl").read_text() == "what it measured"


@pytest.mark.parametrize(("name", "value"), [("levels", 0), ("codes", 1), ("decay", 1.0)])
def test_impossible_configurations_are_refused(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"{name}={value}; give"):
        small("rqvae", **{name: value})
    with pytest.raises(BadInput, match=r"codes\^levels < 2"):
        small("rqvae", codes=2**16, levels=4)
