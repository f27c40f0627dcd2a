"""Ranks of the next item among all items: ties, candidates, and a chain that is learned."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.records import Records
from ligr_jax.data.sources.formats import open_source
from ligr_jax.data.sources.table_columns import TableColumns
from ligr_jax.data.sources.table_source import table_source
from ligr_jax.ops.metrics import hit_rate, ndcg_of_target
from ligr_jax.train.evaluate import evaluate_run
from ligr_jax.train.loop import train
from ligr_jax.train.next_item import NextItemQueries, measure_next_item
from tests.data.logs import DAY_MS, START_MS
from tests.train.runs import small_config

ITEMS = 40
MOVIELENS = Path(__file__).parents[2].parent / "shared" / "data" / "ml_latest_small"


def test_metrics_with_ties_are_the_mean_over_all_orders_of_equal_scores() -> None:
    better, tied, k = np.array([0, 1, 2, 5]), np.array([0, 2, 3, 0]), 3
    hits, gains = [], []
    for above, equal in zip(better, tied, strict=True):
        ranks = above + 1 + np.arange(equal + 1)
        hits.append(np.mean(ranks <= k))
        gains.append(np.mean(np.where(ranks <= k, 1 / np.log2(ranks + 1), 0)))
    assert hit_rate(better, tied, k) == pytest.approx(np.mean(hits))
    assert ndcg_of_target(better, tied, k) == pytest.approx(np.mean(gains))


def test_ranks_on_movielens_equal_a_slow_reference(tmp_path: Path) -> None:
    if not MOVIELENS.is_dir():
        pytest.skip("no MovieLens latest-small")
    options = PrepareOptions(fractions=(1, 0, 0), leave_one_out=True)
    prepare(open_source(MOVIELENS), tmp_path / "prepared", options)
    records = Records(tmp_path / "prepared")
    config = small_config(
        tmp_path / "prepared",
        *("model.next_item=item_id", "model.mask=causal", "model.features.item_id.lookup=direct"),
        "model.features.item_id.rows=200000",
    )
    last = records.offsets[1:] - 1  # the test split: 610 members, each with at least 20 ratings
    rng = np.random.default_rng(0)
    query_nE = rng.integers(-1, 2, (len(last), 4)).astype(np.float32)
    rows_VE = rng.integers(-1, 2, (200_000, 4)).astype(np.float32)  # many ties
    queries = NextItemQueries(last, query_nE, rows_VE)
    numbers = measure_next_item(queries, len(last), records, config, "test")

    item = records.feature("item_id")
    everything = np.unique(item)
    hits = []
    for number, query in zip(last, query_nE, strict=True):
        first = records.offsets[np.searchsorted(records.offsets, number, side="right") - 1]
        others = np.setdiff1d(everything, item[first : number + 1])
        scores, own = rows_VE[others + 1] @ query, rows_VE[item[number] + 1] @ query
        better, equal = (scores > own).sum(), (scores == own).sum()
        hits.append(np.mean(better + np.arange(equal + 1) < 200))
    assert numbers["test/next_item/hr@200"] == pytest.approx(np.mean(hits))
    assert numbers["test/next_item/candidates"] == len(everything) == 9724
    assert numbers["test/next_item/targets"] == 610
    assert numbers["test/next_item/tied"] == 1.0


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which item k is always followed by item k + 1 (mod 40), one a day."""
    directory = tmp_path_factory.mktemp("chain")
    log = pl.DataFrame(
        {
            "member_id": m,
            "item_id": (7 * m + k) % ITEMS,
            "timestamp_ms": START_MS + k * DAY_MS,
            "click": 1,
        }
        for m, k in itertools.product(range(60), range(1, 31))
    )
    log.write_parquet(directory / "log.parquet")
    source = table_source(directory / "log.parquet", TableColumns(actions=("click",)))
    prepare(source, directory / "prepared", PrepareOptions())
    return directory / "prepared"


def test_a_chain_of_items_is_learned_and_ranked_among_all_items(
    chain: Path, tmp_path: Path
) -> None:
    config = small_config(
        chain,
        *("model.next_item=item_id", "model.mask=causal", "model.features.item_id.lookup=direct"),
        *(f"model.features.item_id.rows={ITEMS + 1}", "optim.table_optimizer=adamw"),
        *("optim.bce_weight=0", "optim.rank_weight=0", "train.steps=80", "optim.dense_lr=0.02"),
        *("optim.table_lr=0.05", "model.set_depth=0", "model.table_width=16", "model.width=16"),
    )
    train(config, tmp_path / "run")
    numbers = evaluate_run(tmp_path / "run", "test")
    assert numbers["test/next_item/hr@10"] > 0.9  # 10 of 40 by chance: 0.25
    assert numbers["test/next_item/candidates"] == ITEMS
    assert numbers["test/next_item/targets"] == numbers["test/impressions"]
    assert numbers["test/next_item/without_history"] == 0
