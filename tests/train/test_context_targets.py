"""Untimed rows as targets: what they see, and which of their labels have a gradient."""

from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest

from ligr_jax.config import Feature
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.manifest import Manifest
from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.splits import SplitTimes
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput, Column, LogSchema
from ligr_jax.data.sources.source import LogBatch, LogSource
from ligr_jax.ops.losses import attention_rank_loss, binary_cross_entropy, session_numbers
from tests.batches import model_config
from tests.data.logs import DAY_MS, START_MS
from tests.nn.models import random_params, reach

ACTIONS = ("click", "like")
EARLIER = 7  # untimed rows of the first member; blocks of 3, 3 and 1
TRAIN = SplitTimes(START_MS + 2 * DAY_MS, START_MS + 3 * DAY_MS)


def source(earlier: bool = True) -> LogSource:
    """Return four days of one member with untimed rows, and of one without."""
    timed = pl.DataFrame(
        {"member_id": [1, 1, 1, 1, 2], "day": [0, 0, 1, 2, 3], "item_id": [*range(5)]}
    )
    timed = timed.select(
        "member_id", "item_id", timestamp_ms=START_MS + DAY_MS * pl.col("day"), click=1, like=0
    )
    untimed = pl.DataFrame({"item_id": [*range(10, 10 + EARLIER)]}).with_columns(
        member_id=1, like=1
    )
    return LogSource(
        name="made",
        schema=LogSchema(ACTIONS, {"item_id": Column("categorical")}),
        batches=lambda rows, _: iter([LogBatch("log", 1, timed)]),
        rows=len(timed),
        description={},
        context=(lambda rows, _: iter([LogBatch("earlier", 1, untimed)])) if earlier else None,
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    out = tmp_path_factory.mktemp("prepared")
    return out, prepare(source(), out, PrepareOptions(splits=TRAIN, context_block=3))


@pytest.fixture(scope="module")
def batch(manifest: tuple[Path, Manifest]) -> Batch:
    """The train split of the first member: seven untimed rows, then three of two days."""
    records = Records(manifest[0])
    plan = make_packing_plan(records, "train", 12)
    config = model_config(features={"item_id": Feature(rows=32)}, actions=ACTIONS)
    return Assembler(records, plan, config)(np.arange(1))


def test_the_manifest_counts_targets_without_time_apart_from_the_log(
    manifest: tuple[Path, Manifest], tmp_path: Path
) -> None:
    out, made = manifest
    assert made.counts["context_targets"] == made.counts["context"] == EARLIER
    assert made.splits["train"].impressions == 3
    assert made.splits["train"].positive_rate == {"click": 1.0, "like": 0.0}  # of the log alone
    # Incremental training on the second day has the first day as context, not as targets.
    edges = (START_MS + DAY_MS, *(START_MS + d * DAY_MS for d in (2, 3, 4)))
    assert make_packing_plan(Records(out), "train", 12).targets == EARLIER + 3
    assert make_packing_plan(Records(out, edges), "train", 12).targets == 1
    with pytest.raises(BadInput, match=r"made has no untimed rows .*--train-on-context"):
        prepare(source(earlier=False), tmp_path, PrepareOptions(splits=TRAIN, context_block=3))


def test_an_untimed_row_sees_actions_of_earlier_blocks_and_no_later_row(batch: Batch) -> None:
    assert batch.session[0, :10].tolist() == [0, 0, 0, 1, 1, 1, 2, 3, 3, 4]
    assert (batch.weight[0, :10] == 1).all()
    assert (batch.time[0, :EARLIER] == 0).all()
    config = model_config(
        features={"item_id": Feature(rows=32)}, actions=ACTIONS, set_depth=1, unroll="no"
    )
    seen = reach(config, random_params(config, batch), batch)
    items, actions = (x[0, :10, 0, :10] > 0 for x in (seen.items, seen.actions))
    session = np.asarray(batch.session[0, :10])
    np.testing.assert_array_equal(actions, session < session[:, None])
    np.testing.assert_array_equal(items, session <= session[:, None])


def test_masked_labels_have_no_gradient(batch: Batch) -> None:
    labels = np.asarray(batch.labels)
    assert (labels[0, :EARLIER, 0] == -1).all()
    assert (labels[0, :EARLIER, 1] == 1).all()

    def loss(z: jax.Array) -> jax.Array:
        number = session_numbers(batch.member, batch.session)
        rank, _ = attention_rank_loss(z, batch.labels, number, batch.weight > 0)
        return binary_cross_entropy(z, batch.labels, batch.weight)[0].sum() + rank.sum()

    z = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    gradient = np.asarray(jax.jit(jax.grad(loss))(z))
    assert (gradient[labels < 0] == 0).all()
    assert (gradient[labels >= 0] != 0).all()
