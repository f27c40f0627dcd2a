"""`ligr fit` on tables of runs: every form, as text and as JSON."""

import json

import numpy as np
import polars as pl
import pytest

from ligr_jax.cli import main


@pytest.fixture
def table(tmp_path):
    compute = np.repeat(np.geomspace(6e18, 3e21, 4), 5)
    n = 0.05 * compute**0.51 * 10 ** np.tile(np.linspace(-0.6, 0.6, 5), 4)
    d = compute / 6 / n
    loss = 1.8 + 480 * n**-0.35 + 2085 * d**-0.37
    loss *= np.exp(1e-3 * np.random.default_rng(0).normal(size=len(n)))
    path = tmp_path / "runs.csv"
    pl.DataFrame({"N": n, "D": d, "U": d / 2, "C": compute, "loss": loss}).write_csv(path)
    return str(path)


COMMON = ["--loss", "loss", "--n", "N", "--d", "D", "--axis", "C", "--bootstrap", "20"]


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("power", {"E", "A", "alpha", "gain_per_decade"}),
        ("line", {"level", "slope", "gain_per_decade"}),
        ("chinchilla", {"E", "A", "B", "alpha", "beta", "a", "b"}),
        ("isoflop", {"exponent", "coefficient"}),
    ],
)
def test_json_holds_every_parameter_its_interval_and_the_points(table, capsys, form, names):
    assert main(["fit", table, "--form", form, *COMMON, "--leave-out", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["params"]) == set(found["intervals"]) == names
    assert found["points"] == len(found["runs"]) == 20
    assert found["objective"] >= 0
    assert {"observed", "low", "high", "covered"} <= set(found["left_out"][0])


def test_words_say_the_form_and_its_scales(table, capsys):
    assert main(["fit", table, "--form", "chinchilla", *COMMON, "--unique", "U"]) == 0
    said = capsys.readouterr().out
    assert "loss = E + A N^-alpha + B D^-beta, N = N, D = D, 20 runs" in said
    assert "R_D" in said
    assert main(["fit", table, "--form", "isoflop", *COMMON]) == 0
    assert "best N at 6e+18 FLOPs" in capsys.readouterr().out


def test_prediction_is_registered_once(table, capsys, tmp_path):
    words = ["fit", table, *COMMON, "--register", str(tmp_path / "next.json")]
    assert main([*words, "--at", "1e22"]) == 0
    assert json.loads((tmp_path / "next.json").read_text())["metric"] == "loss"
    assert main([*words, "--at", "1e22"]) == 1
    assert "already registered" in capsys.readouterr().err
    assert main([*words, "--at", "much"]) == 1
    assert "--at much" in capsys.readouterr().err
