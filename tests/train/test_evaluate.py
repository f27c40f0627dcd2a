"""Evaluation: exact metrics, the metrics of the oracle, and the detection of leaks."""

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from ligr_jax.commands.eval import left_out_lines
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.records import Records
from ligr_jax.scaling.ladder import configure
from ligr_jax.train.measure import Predictions, measure
from ligr_jax.train.measure_shown import measure_shown
from tests.train.runs import small_config


@pytest.fixture(scope="module")
def records(prepared: Path) -> Records:
    return Records(prepared)


def test_targets(records: Records) -> np.ndarray:
    """Impression numbers of the test split, from the counts alone."""
    ends = records.offsets[1:]
    return np.concatenate(
        [np.arange(e - n, e) for e, n in zip(ends, records.counts[:, 3]) if n] or [[]]
    ).astype(np.int64)


test_targets.__test__ = False  # type: ignore[attr-defined]


def predictions(records: Records, logits: np.ndarray) -> Predictions:
    targets = test_targets(records)
    labels = np.stack([records.label(a, targets) for a in records.manifest.actions], 1)
    return Predictions(targets, logits.astype(np.float32), labels)


def test_numbers_equal_scikit_learn(prepared: Path, records: Records) -> None:
    targets = test_targets(records)
    logits = np.random.default_rng(0).normal(size=(len(targets), 2))
    table = predictions(records, logits)
    out = measure(table, records, small_config(prepared), "test")
    for a, action in enumerate(records.manifest.actions):
        y, p = table.labels[:, a], 1 / (1 + np.exp(-table.logits[:, a].astype(np.float64)))
        rate = y.mean()
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        assert out[f"test/{action}/auc"] == pytest.approx(roc_auc_score(y, p), abs=1e-9)
        assert out[f"test/{action}/ne"] == pytest.approx(log_loss(y, p) / entropy, rel=1e-6)
        assert out[f"test/{action}/calibration"] == pytest.approx(p.sum() / y.sum(), rel=1e-6)
    member = pl.Series(np.searchsorted(records.offsets, targets, side="right"))
    frame = pl.DataFrame({"m": member, "y": table.labels[:, 0], "s": table.logits[:, 0]})
    aucs, sizes = [], []
    for _, group in frame.group_by("m"):
        if 0 < group["y"].sum() < len(group):
            aucs.append(roc_auc_score(group["y"], group["s"]))
            sizes.append(len(group))
    expected = np.average(aucs, weights=sizes)
    assert out["test/click/gauc"] == pytest.approx(expected, abs=1e-9)
    assert out["test/impressions"] == records.manifest.splits["test"].impressions


def test_impressions_are_also_measured_where_they_were_shown(
    prepared: Path, records: Records
) -> None:
    config = small_config(
        prepared,
        "model.features.dwell_s.outcome=false",
        "model.features.dwell_s.post=true",
        "model.features.dwell_s.edges=10,40",
    )
    targets = test_targets(records)
    table = predictions(records, np.random.default_rng(0).normal(size=(len(targets), 2)))
    out = measure_shown(table, records, config.model, "test")
    dwell = records.feature("dwell_s", targets)
    row = np.where(np.isnan(dwell), 0, 1 + (dwell >= 10) + (dwell >= 40))
    assert set(row) >= {1, 2, 3}
    for r in range(4):
        y, score = table.labels[row == r, 0], table.logits[row == r, 0]
        assert out[f"test/click/shown_{r}/impressions"] == len(y)
        if 0 < y.sum() < len(y):
            wanted = roc_auc_score(y, score)
            assert out[f"test/click/shown_{r}/auc"] == pytest.approx(wanted, abs=1e-9)
    whole = measure(table, records, config, "test")
    for name in ("ne", "auc", "calibration", "ece"):
        assert out[f"test/click/shown/{name}"] == whole[f"test/click/{name}"]


def test_the_oracle_is_measured_and_a_model_that_beats_it_is_flagged(
    prepared: Path, records: Records
) -> None:
    targets = test_targets(records)
    truth = np.stack([records.truth(a, targets) for a in records.manifest.actions], 1).astype(
        np.float64
    )
    logits = np.log(truth) - np.log1p(-truth)
    config = small_config(prepared)
    honest = measure(predictions(records, logits), records, config, "test")
    assert honest["test/ne"] == pytest.approx(honest["oracle/test/ne"], rel=1e-5)
    assert honest["beats_oracle"] is False
    read = predictions(records, logits)
    peeking = dataclasses.replace(read, logits=read.logits + np.float32(3) * (read.labels - 0.5))
    leaking = measure(peeking, records, config, "test")
    assert leaking["beats_oracle"] is True


@pytest.mark.parametrize("label", [1, 0, -1])
def test_an_action_without_both_labels_is_left_out_of_means_by_name(
    prepared: Path, records: Records, label: int
) -> None:
    logits = np.random.default_rng(0).normal(size=(len(test_targets(records)), 2))
    table, config = predictions(records, logits), small_config(prepared)
    whole = measure(table, records, config, "test")
    assert "test/left_out" not in whole
    labels = table.labels.copy()
    labels[:, 0] = label
    out = measure(dataclasses.replace(table, labels=labels), records, config, "test")
    assert out["test/left_out"] == "click"
    for prefix in ("test", "oracle/test"):
        for metric in ("ne", "auc"):
            assert np.isnan(out[f"{prefix}/click/{metric}"])
            assert out[f"{prefix}/{metric}"] == whole[f"{prefix}/like/{metric}"]
    assert {**whole, "test/left_out": 0}.keys() >= out.keys()
    said = left_out_lines(out, "test")
    why = "it has no labels" if label < 0 else f"all its labels are {label}"
    assert said == [f"click is left out of the means over actions: {why} in test"]
    labels[:, 1] = label
    out = measure(dataclasses.replace(table, labels=labels), records, config, "test")
    assert out["test/left_out"] == "click,like"
    assert np.isnan([out["test/ne"], out["oracle/test/auc"]]).all()


def test_base_rates_lie_inside_0_and_1_whatever_the_labels(prepared: Path) -> None:
    manifest = load_manifest(prepared)
    train = dataclasses.replace(manifest.splits["train"], positive_rate={"like": 1.0})
    for rates in ({"click": 0.0, "like": 1.0}, {"like": 1.0}, {}):
        train = dataclasses.replace(train, positive_rate=rates)
        changed = dataclasses.replace(manifest, splits={**manifest.splits, "train": train})
        for assignments in ([], ["model.actions=like"], ["model.actions=like,click"]):
            model = configure(changed, prepared, assignments).model
            assert all(0 < rate < 1 for rate in model.prior)
            assert len(model.prior) == len(model.actions)


def test_cold_slices_are_those_with_few_train_impressions(prepared: Path, records: Records) -> None:
    targets = test_targets(records)
    config = small_config(prepared, "eval.cold_below=80")
    out = measure(predictions(records, np.zeros((len(targets), 2))), records, config, "test")
    ids, counts = records.feature("item_id"), records.counts
    split = np.concatenate([np.repeat([0, 1, 2, 3], row) for row in counts])
    seen = {i: int(n) for i, n in zip(*np.unique(ids[split == 1], return_counts=True))}
    cold = sum(seen.get(i, 0) < 80 for i in ids[targets])
    assert 0 < cold < len(targets)
    assert out["test/click/cold_items/impressions"] == cold
    member = np.searchsorted(records.offsets, targets, side="right") - 1
    assert out["test/click/cold_members/impressions"] == (counts[member, 1] < 80).sum()
