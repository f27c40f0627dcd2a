"""Fixed columns of a table of runs: their types, and their values where a run lacks them."""

import numpy as np
import polars as pl
import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.runs.run_table import RunTable

FULL = RunTable(
    pl.DataFrame(
        {
            "run": ["a", "b", "c"],
            "sweep": ["y", "x", "y"],
            "sweeps": ["y, x", "x", "y"],
            "beats_oracle": ["true", None, "false"],
            "leaks": [None, True, False],
            "device": ["h100", None, "cpu"],
            "devices": [4, 2, None],
            "seconds": [1.0, 2.0, 3.0],
            "start_seconds": [0.5, None, 0.5],
            "eval_seconds": [0.25, 1.0, 0.25],
            "estimate/seconds": [2, None, 4],
            "oracle/validation/ne": [0.5, 0.6, None],
            "config/train.seed": [0, 1, 0],
        }
    ).with_columns(pl.col("beats_oracle") == "true")
)
BARE = RunTable(pl.DataFrame({"run": ["a", "b"], "sweep": "s", "sweeps": "s", "seconds": [1, 2]}))


def test_fixed_columns_have_one_value_per_run() -> None:
    assert FULL.names == ("a", "b", "c")
    assert FULL.sweeps == (("y", "x"), ("x",), ("y",))
    assert FULL.settings == ["config/train.seed"]
    assert FULL.device_kinds == ("cpu", "h100")
    np.testing.assert_array_equal(FULL.beats_oracle, [True, False, False])
    np.testing.assert_array_equal(FULL.leaks, [True, True, False])
    np.testing.assert_array_equal(FULL.estimated_seconds, [2, np.nan, 4])
    np.testing.assert_array_equal(FULL.actual_seconds, [1.75, np.nan, 3.75])
    np.testing.assert_array_equal(FULL.oracle("validation/ne"), [0.5, 0.6, np.nan])
    seconds = FULL.with_device_seconds()
    np.testing.assert_array_equal(seconds.numbers("device_seconds"), [4, 4, np.nan])
    assert seconds.with_device_seconds() is seconds


def test_absent_columns_are_none_or_have_their_default() -> None:
    np.testing.assert_array_equal(BARE.leaks, [False, False])
    np.testing.assert_array_equal(BARE.with_device_seconds().numbers("device_seconds"), [1, 2])
    assert BARE.device_kinds == ()
    absent = (
        BARE.named_architectures,
        BARE.estimated_seconds,
        BARE.actual_seconds,
        BARE.oracle("ne"),
    )
    assert absent == (None,) * 4
    with pytest.raises(BadInput, match="no column 'flops_model'"):
        _ = BARE.flops_model


def test_rows_are_chosen_by_mask_number_and_sweep() -> None:
    assert FULL.where(~FULL.leaks).names == ("c",)
    assert FULL.take([2, 0]).names == ("c", "a")
    assert FULL.take([]).names == ()
    assert [part.names for part in FULL.by_sweep()] == [("a", "c"), ("b",)]
    assert [row["devices"] for row in FULL.sort("run").rows()] == [4, 2, None]
