"""Every form predicts the runs left out of the fit; a written prediction is never overwritten."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import (
    effective_data,
    fit_line,
    fit_power,
    fit_saturating,
    fit_surface,
    leave_out_largest,
    predict_run,
    preregister,
    score,
)

C = np.geomspace(1e12, 1e16, 12)
RNG = np.random.default_rng(0)
AUC = 0.8 - 0.15 * (C / 1e12) ** -0.25 + 2e-4 * RNG.normal(size=len(C))
N, D = np.exp(RNG.uniform(np.log([[4e7], [3e8]]), np.log([[1.6e10], [1e12]]), (2, 40)))
UNIQUE = D / RNG.choice([1, 1, 4, 20], 40)


def surface(d):
    return (1.8 + 480 * N**-0.35 + 2085 * d**-0.37) * np.exp(3e-3 * RNG.normal(size=len(N)))


@pytest.mark.parametrize(
    ("fit", "scales", "metric", "options"),
    [
        (fit_power, C, 1 - AUC, {}),
        (fit_saturating, C, AUC, {}),
        (fit_line, C, 0.7 + 0.01 * np.log10(C) + 1e-3 * RNG.normal(size=len(C)), {}),
        (fit_surface, (N, D), surface(D), {}),
        (fit_surface, (N, D), surface(effective_data(D, UNIQUE, 15.0)), {"unique": UNIQUE}),
    ],
    ids=["power", "saturating", "line", "surface", "repeated"],
)
def test_left_out_runs_are_predicted_and_covered(fit, scales, metric, options):
    rows = leave_out_largest(fit, scales, metric, k=2, resamples=100, **options)
    compute = 6 * N * D if isinstance(scales, tuple) else C
    largest = np.argsort(compute)[-2:]
    assert sorted(r.run for r in rows) == sorted(f"#{i}" for i in largest)
    for row in rows:
        i = int(row.run[1:])
        assert (row.compute, row.observed) == pytest.approx((compute[i], metric[i]))
        assert row.low < row.predicted < row.high
        assert row.covered, row


def test_at_least_one_budget_must_remain():
    with pytest.raises(BadInput, match="cannot leave out 12 of 12 budgets: give 1 to 11"):
        leave_out_largest(fit_line, C, AUC, k=12)


def test_registered_prediction_is_scored_and_never_overwritten(tmp_path):
    path = tmp_path / "next.json"
    law = fit_power(C[:-1], 1 - AUC[:-1], resamples=100)
    prediction = preregister(path, law, C[-1], "error", run="r12")
    written = json.loads(path.read_text())
    assert written["law"]["runs"] == list(law.runs)
    assert written["law"]["objective"] == law.objective
    assert written["law"]["version"] == law.version
    assert written["registered"].endswith("+00:00")
    row = score(path, 1 - AUC[-1])
    assert (row.run, row.compute, row.predicted) == ("r12", C[-1], prediction.predicted)
    assert row.covered
    assert not score(path, 2.0).covered
    with pytest.raises(BadInput, match="a prediction is already registered"):
        preregister(path, law, C[-1], "error")
    assert json.loads(path.read_text()) == written


def test_surface_is_registered_at_parameters_and_data(tmp_path):
    law = fit_surface(N, D, surface(D), resamples=20)
    prediction = preregister(tmp_path / "p.json", law, (1e10, 1e12), "loss")
    assert prediction.compute == pytest.approx(6e22)
    assert score(tmp_path / "p.json", 2.0).predicted == pytest.approx(law.predict(1e10, 1e12)[0])
    with pytest.raises(BadInput, match="has 1 values"):
        preregister(tmp_path / "q.json", law, 1e22, "loss")


def test_file_that_is_not_a_prediction_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    for path in (tmp_path / "x.json", tmp_path / "none.json"):
        with pytest.raises(BadInput, match="not a registered prediction"):
            score(path, 1.0)


def test_a_prediction_outside_its_interval_has_no_interval():
    law = fit_power(C, 1 - AUC, resamples=50)
    assert predict_run(law, 1e17).low < predict_run(law, 1e17).predicted
    elsewhere = replace(law, draws=law.draws + np.array([1.0, 0.0, 0.0]))
    prediction = predict_run(elsewhere, 1e17)
    assert prediction.predicted == predict_run(law, 1e17).predicted
    assert np.isnan([prediction.low, prediction.high]).all()
