"""Laws of batches from data frames: they equal the batches of prepared data."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ligr_jax.config import Feature, ModelConfig
from ligr_jax.data.assemble import Assembler
from ligr_jax.data.batch import Batch
from ligr_jax.data.from_frame import FrameBatch, batch_from_dicts, batch_from_frame
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.packing_plan import PackingPlan
from ligr_jax.data.prepare.build import prepare
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput, Column, LogSchema, save_schema
from ligr_jax.data.sources.canonical import canonical_source
from tests.data.logs import ACTIONS, write_log

FEATURES = {
    "item_id": Feature(rows=31, lookup="direct"),
    "surface": Feature(rows=50),
    "seen": Feature(rows=40, lookup="qr"),
    "tags": Feature(rows=20, bag="mean", bag_size=2),
    "age_days": Feature("numeric"),
    "content": Feature("vector", width=3),
    "dwell_s": Feature("bucket", rows=9, outcome=True),
}
MODEL = ModelConfig(features=FEATURES, actions=ACTIONS)


def flat(batch: Batch) -> dict[str, np.ndarray]:
    """The arrays of a batch by name."""
    arrays: dict[str, np.ndarray] = {}
    for field, value in batch._asdict().items():
        arrays |= {f"{field}.{n}": x for n, x in value.items()} if isinstance(value, dict) else {}
        arrays |= {} if isinstance(value, dict) else {field: value}
    return arrays


def assert_equal(made: Batch, expected: Batch) -> None:
    ours, theirs = flat(made), flat(expected)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype, name
        np.testing.assert_array_equal(array, theirs[name], name)


def write(directory: Path, sessions: bool) -> pl.DataFrame:
    """Write a log with all kinds of features, and return its rows."""
    log = write_log(directory, rows=200, members=9, sessions=sessions)
    rng = np.random.default_rng(3)
    log = log.with_columns(
        seen=pl.Series([None if k % 7 == 0 else f"author {k % 5}" for k in range(len(log))]),
        tags=pl.Series([[f"t{j}" for j in range(k % 4)] for k in range(len(log))]),
        content=pl.Series(rng.normal(size=(len(log), 3)).astype(np.float32)).arr.to_list(),
        weight=pl.Series(rng.uniform(0.5, 2, len(log)).astype(np.float32)),
        like=pl.Series([None if k % 3 == 0 else k % 2 for k in range(len(log))], dtype=pl.Int8),
    )
    log.write_parquet(directory / "impressions-00000.parquet")
    kinds = {"age_days": "numeric", "dwell_s": "numeric", "content": "vector", "tags": "bag"}
    columns = {
        name: Column(kinds.get(name, "categorical"), f.outcome, width=f.width or 1)  # type: ignore[arg-type]
        for name, f in FEATURES.items()
    }
    save_schema(LogSchema(ACTIONS, columns), directory)
    return log


@pytest.mark.parametrize("sessions", [False, True], ids=["gaps", "session ids"])
def test_a_frame_gives_the_batch_of_the_prepared_log(tmp_path: Path, sessions: bool) -> None:
    log = write(tmp_path / "log", sessions)
    options = PrepareOptions(fractions=(1, 0, 0))
    manifest = prepare(canonical_source(tmp_path / "log"), tmp_path / "prepared", options)
    records = Records(tmp_path / "prepared")

    made = batch_from_frame(log, MODEL, manifest.columns)
    # The rows of prepared data in the order of members in the frame.
    order = [
        records.member_ids.tolist().index(m) for m in log["member_id"].unique(maintain_order=True)
    ]
    start, stop = records.offsets[:-1][order], records.offsets[1:][order]
    plan = PackingPlan(
        capacity=int((stop - start).max()),
        start=start,
        target=start,
        stop=stop,
        bounds=np.arange(len(order) + 1),
    )
    assert_equal(made.batch, Assembler(records, plan, MODEL)(np.arange(len(order))))
    assert made.batch.validate(MODEL) is made.batch
    assert made.batch.session.max() > 2

    # Every row of the frame is one impression of the batch.
    valid = made.rows >= 0
    np.testing.assert_array_equal(np.sort(made.rows[valid]), np.arange(len(log)))
    np.testing.assert_array_equal(made.in_frame_order(made.batch.weight), log["weight"])

    # Other containers of the same impressions give the same batch.
    arrow = batch_from_frame(log.to_arrow(), MODEL, manifest.columns)
    dicts = batch_from_dicts(log.to_dicts(), MODEL, manifest.columns)
    assert_equal(arrow.batch, made.batch)
    assert_equal(dicts.batch, made.batch)


SMALL = ModelConfig(features={"item_id": Feature(rows=50)}, actions=("click", "like"))
ROWS = [
    {"member_id": "anna", "timestamp_ms": 1_700_000_000_000, "item_id": 3, "click": 1, "like": 0},
    {"member_id": "bert", "timestamp_ms": 1_700_000_100_000, "item_id": 3, "click": 0},
    {"member_id": "anna", "timestamp_ms": 1_700_003_600_000, "item_id": "x"},  # to be predicted
]


def example() -> FrameBatch:
    rows = [{**row, "item_id": str(row["item_id"])} for row in ROWS]
    return batch_from_dicts(rows, SMALL)


def test_dictionaries_are_histories_with_unknown_labels_where_a_key_is_missing() -> None:
    batch, rows, _ = example()
    assert batch.member.tolist() == [[1, 1], [1, 0]]
    assert batch.session.tolist() == [[0, 1], [0, 0]]  # an hour ends a session
    assert batch.time.tolist() == [[0, 1], [0, 0]]
    assert batch.labels.tolist() == [[[1, 0], [-1, -1]], [[0, -1], [-1, -1]]]
    assert batch.ids["item_id"][0, 0] == batch.ids["item_id"][1, 0] != batch.ids["item_id"][0, 1]
    assert rows.tolist() == [[0, 2], [1, -1]]


def test_only_the_latest_impressions_of_a_long_history_are_used() -> None:
    n = 30
    time = 1_700_000_000_000 + 60_000 * np.random.default_rng(0).permutation(n)
    frame = pl.DataFrame({"member_id": [1] * n, "timestamp_ms": time, "item_id": range(n)})
    made = batch_from_frame(frame, SMALL, impressions=8)
    latest = np.argsort(time)[-8:]
    np.testing.assert_array_equal(made.rows, [latest])
    values = made.in_frame_order(np.arange(8, dtype=np.float32)[None])
    np.testing.assert_array_equal(values[latest], np.arange(8))
    assert np.isnan(values).sum() == n - 8
    assert made.batch.session[0, 0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"item_id": None},
            r"row 1, column 'item_id': value None is not an id; correct it$",
        ),
        ({"timestamp_ms": -5}, "row 1, column 'timestamp_ms': value -5 is a negative time"),
        ({"timestamp_ms": 2**60}, "row 1, .* is in the future; .*divide microseconds by 1,000$"),
        ({"click": 7}, r"column 'click': its values are .*7 \(1 rows\).*Write the column as 0 and"),
        ({"item_id": [1, 2]}, r"do not form a table \(.*\); give each key values of one type"),
    ],
)
def test_bad_values_are_named_with_their_row(change: dict[str, Any], message: str) -> None:
    rows = [dict(ROWS[0]), {**ROWS[0], **change}]
    with pytest.raises(BadInput, match=message) as refused:
        batch_from_dicts(rows, SMALL)
    assert "--on-bad-row" not in str(refused.value)


def test_frames_that_do_not_fit_the_model_are_refused() -> None:
    frame = pl.DataFrame(ROWS[:2])
    with pytest.raises(BadInput, match="frame: no column 'member_id'"):
        batch_from_frame(frame.drop("member_id"), SMALL)
    with pytest.raises(BadInput, match="no statistics of the numeric feature 'age_days'; pass"):
        batch_from_frame(frame, MODEL)
    with pytest.raises(BadInput, match="no rows"):
        batch_from_frame(frame.clear(), SMALL)
    with pytest.raises(BadInput, match=r"list is not a data frame; .* or use batch_from_dicts"):
        batch_from_frame(ROWS, SMALL)


def test_the_quantiles_of_the_manifest_are_those_of_training(prepared: Path) -> None:
    columns = load_manifest(prepared).columns
    model = ModelConfig(features={"age_days": Feature("numeric")}, actions=("click",))
    highest = columns["age_days"].quantiles[-1]
    row = {"member_id": 1, "timestamp_ms": 1_700_000_000_000, "age_days": highest}
    assert batch_from_dicts([row], model, columns).batch.numeric["age_days"].tolist() == [[1.0]]
