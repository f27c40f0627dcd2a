"""Laws of `Scorer`: from a run directory to the logits of its evaluation."""

import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from ligr_jax.api import TrainedModel, load_run
from ligr_jax.config import ConfigError, ScoringConfig
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.serve import CacheFull, Scorer, stack_caches

ROUNDING = 2e-5  # of logits near 1, in float32


@pytest.fixture(scope="module")
def trained(finished: Path) -> TrainedModel:
    return load_run(finished)


@pytest.fixture(scope="module")
def scorer(finished: Path) -> Scorer:
    return Scorer.from_run(finished, scoring=ScoringConfig(set_top=1000, smallest=8))


@pytest.fixture(scope="module")
def windows(prepared: Path, scorer: Scorer) -> Batch:
    """Training rows of one window each: of a member's first impressions, and of later ones."""
    records = Records(prepared)
    n = scorer.capacity
    first = records.offsets[:-1][records.offsets[1:] - records.offsets[:-1] >= 2 * n][:2]
    assert len(first) == 2
    start = np.concatenate([first, first + n // 2 + 3])  # the second begin inside a session
    plan = PackingPlan(
        capacity=n, start=start, target=start, stop=start + n, bounds=np.arange(len(start) + 1)
    )
    return Assembler(records, plan, scorer.model)(np.arange(len(plan)))


def part(batch: Batch, start: int, stop: int) -> Batch:
    taken: Batch = jax.tree.map(lambda x: np.asarray(x)[:, start:stop], batch)
    return taken


def row(batch: Batch, number: int) -> Batch:
    taken: Batch = jax.tree.map(lambda x: np.asarray(x)[number : number + 1], batch)
    return taken


def test_served_logits_equal_those_of_training_rows(
    trained: TrainedModel, scorer: Scorer, windows: Batch
) -> None:
    """Each session is ranked with the history before it, and appended; two halves are cut apart."""
    predicted = trained.predict(windows).logits
    for number in range(len(windows.member)):
        window = row(windows, number)
        bounds = np.flatnonzero(np.diff(window.session[0], prepend=-1, append=-1))
        cache = scorer.encode(part(window, 0, 0))
        for start, stop in itertools.pairwise(bounds):
            session = part(window, start, stop)
            unknown = session._replace(
                session=np.full_like(session.session, -1), labels=np.zeros_like(session.labels)
            )
            logits = scorer.rank(cache, unknown).logits_BCA[0]
            for a, action in enumerate(scorer.model.actions):
                wanted = predicted[action][number, start:stop]
                np.testing.assert_allclose(logits[:, a], wanted, atol=ROUNDING)
            middle = (start + stop) // 2
            cache = scorer.append(cache, part(window, start, middle))
            cache = scorer.append(cache, part(window, middle, stop))
        assert scorer.room(cache).tolist() == [0]
        again = scorer.encode(window)
        np.testing.assert_allclose(
            scorer.score(cache, unknown), scorer.score(again, unknown), atol=ROUNDING
        )
        with pytest.raises(CacheFull, match="row 0 has 16 impressions and got 1 more"):
            scorer.append(cache, part(window, 15, 16))


def test_requests_are_scored_together_as_alone(scorer: Scorer, windows: Batch) -> None:
    lengths = [3, 16]
    caches = [scorer.encode(part(row(windows, i), 0, n)) for i, n in enumerate(lengths)]
    asked = part(windows, 4, 9)
    asked = asked._replace(session=np.full_like(asked.session, -1))
    pair = jax.tree.map(lambda x: x[:2], asked)
    together = scorer.rank(stack_caches(caches), pair)
    for i, cache in enumerate(caches):
        alone = scorer.rank(cache, row(asked, i))
        np.testing.assert_allclose(together.logits_BCA[i], alone.logits_BCA[0], atol=ROUNDING)


def test_wrong_batches_are_refused(scorer: Scorer, windows: Batch) -> None:
    window = row(windows, 0)
    cache = scorer.encode(part(window, 0, 8))
    last = int(window.session[0, 7])
    asked = part(window, 8, 12)
    for change, message in [
        ({"session": asked.session * 0 + last - 1}, "give a number that is not below it, or -1"),
        ({"session": asked.session * 0 + np.arange(4)}, "has several sessions"),
        ({"time": asked.time + np.inf}, "infinite values"),
        ({"member": asked.member + np.array([[0, 0, 0, 1]])}, "several members"),
        ({"ids": {}}, "batch.ids has no"),
    ]:
        with pytest.raises(BadInput, match=message):
            scorer.score(cache, asked._replace(**change))
    with pytest.raises(BadInput, match="2 rows and the cache 1"):
        scorer.score(cache, jax.tree.map(lambda x: np.concatenate([x, x]), asked))
    with pytest.raises(BadInput, match="continue it or give the number after it"):
        scorer.append(cache, asked._replace(session=asked.session + 2))
    with pytest.raises(BadInput, match="append impressions in the order of time"):
        scorer.append(cache, asked._replace(time=asked.time * 0 - 1))
    with pytest.raises(BadInput, match="the largest number is 16"):
        scorer.encode(jax.tree.map(lambda x: np.concatenate([x, x[:, -1:]], 1), window))
    with pytest.raises(BadInput, match="several members"):
        scorer.encode(
            window._replace(member=np.arange(16)[None] // 8 + 1, session=np.zeros((1, 16), int))
        )


def test_wrong_settings_are_refused(finished: Path) -> None:
    with pytest.raises(ConfigError, match="give one for each of"):
        Scorer.from_run(finished, scoring=ScoringConfig(weights=(1.0,) * 9))
    with pytest.raises(ConfigError, match="set_top=-1 must be >= 0"):
        ScoringConfig(set_top=-1)
    with pytest.raises(ConfigError, match="position=0 must be >= 1"):
        ScoringConfig(position=0)
    with pytest.raises(ConfigError, match="one of them > 0"):
        ScoringConfig(weights=(0.0, 0.0))
