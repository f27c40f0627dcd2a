"""`ligr fit` on tables of runs: every form, as text and as JSON."""

import json
import re

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


@pytest.mark.parametrize(
    ("form", "at", "words"),
    [
        ("power", "1e22", "predicted loss at 1e22: "),
        ("chinchilla", "1e10,2e11", "predicted loss at 1e10,2e11: "),
        ("isoflop", "1e22", "predicted best N at 1e22: "),
    ],
)
def test_a_prediction_is_printed_with_its_interval(table, capsys, tmp_path, form, at, words):
    """It is the one that --register writes."""
    command = ["fit", table, "--form", form, *COMMON, "--at", at]
    assert main(command) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("predicted"))
    assert line.startswith(words)
    assert "90% interval" in line
    law, _ = fitted(capsys, *command[1:])
    prediction = law["prediction"]
    assert prediction["low"] < prediction["predicted"] < prediction["high"]
    assert f"{prediction['predicted']:.5g}" in line
    if form != "isoflop":
        law, _ = fitted(capsys, *command[1:], "--register", str(tmp_path / "next.json"))
        registered = json.loads((tmp_path / "next.json").read_text())
        assert law["prediction"] == prediction
        assert registered["predicted"] == prediction["predicted"]
    assert main([*command[:-1], "0"]) == 1
    assert "--at 0: give C" in capsys.readouterr().err


def test_rows_without_a_number_are_left_out_by_name(table, capsys, tmp_path):
    runs = pl.read_csv(table).cast(pl.String).with_row_index("run")
    runs = runs.with_columns(
        run=pl.format("r{}", "run"),
        State=pl.when(pl.col("run") == 3).then(pl.lit("crashed")).otherwise(pl.lit("finished")),
        loss=pl.when(pl.col("run") == 5).then(pl.lit("n/a")).otherwise("loss"),
        C=pl.when(pl.col("run") != 7).then("C"),
    )
    runs.write_csv(tmp_path / "runs.tsv", separator="\t", quote_style="always")
    law, messages = fitted(capsys, str(tmp_path / "runs.tsv"), *COMMON)
    assert law["runs"] == [f"r{k}" for k in range(20) if k not in (3, 5, 7)]
    assert "left out r3: State is crashed" in messages
    assert "left out r5: loss is not a finite number, its cell is empty" in messages
    assert "left out r7: C is empty, not a positive number" in messages
    # The text of a column that the fit does not use is no error; of one that it uses, it is.
    runs = runs.with_columns(N=pl.lit("large"))
    runs.write_csv(tmp_path / "named.csv")
    assert fitted(capsys, str(tmp_path / "named.csv"), *COMMON)[0]["points"] == 17
    assert main(["fit", str(tmp_path / "named.csv"), "--form", "chinchilla", *COMMON]) == 1
    error = capsys.readouterr().err
    message = f"{tmp_path / 'named.csv'}, row 1, column 'N': 'large' is not a number"
    assert message in error
    words = ["plan", "--runs", str(tmp_path / "named.csv"), "--metric", "loss", "--axis", "N"]
    assert main([*words, "--flops", "1e22"]) == 1
    assert message in capsys.readouterr().err


def fitted(capsys, *words):
    """Return the law that `ligr fit` prints as JSON, and its messages."""
    assert main(["fit", *words, "--json"]) == 0
    out, messages = capsys.readouterr()
    return json.loads(out), messages


@pytest.mark.parametrize("words", [["--loss", "quality"], ["--metric", "quality", "--lower"]])
def test_a_loss_of_any_name_is_lower_is_better(table, capsys, tmp_path, words):
    path = tmp_path / "renamed.csv"
    pl.read_csv(table).rename({"loss": "quality"}).write_csv(path)
    law, _ = fitted(capsys, str(path), *words, "--axis", "C", "--bootstrap", "0")
    assert law["form"] == "power"
    assert law["params"]["gain_per_decade"] > 0
    line, _ = fitted(capsys, str(path), *words, "--axis", "C", "--form", "line")
    assert line["params"]["gain_per_decade"] > 0 > line["params"]["slope"]


def test_an_unknown_metric_needs_a_direction(table, capsys, tmp_path):
    path = tmp_path / "renamed.csv"
    pl.read_csv(table).rename({"loss": "quality"}).write_csv(path)
    assert main(["fit", str(path), "--metric", "quality", "--axis", "C"]) == 1
    assert "--lower or --higher" in capsys.readouterr().err
    assert main(["plan", "--runs", str(path), "--metric", "quality", "--flops", "1e22"]) == 1
    assert "--lower or --higher" in capsys.readouterr().err
    assert main(["fit", str(path), "--loss", "quality", "--axis", "C", "--higher"]) == 2
    assert "--metric quality --higher" in capsys.readouterr().err


def test_copies_of_rows_narrow_no_interval(table, capsys, tmp_path):
    path = tmp_path / "copies.csv"
    pl.concat([pl.read_csv(table)] * 4).write_csv(path)
    once, _ = fitted(capsys, table, *COMMON)
    copied, messages = fitted(capsys, str(path), *COMMON)
    assert copied["points"] == 20
    assert copied["intervals"] == once["intervals"]
    assert "60 of 80 rows repeat another row" in messages


def test_rows_of_a_group_are_drawn_together(table, capsys, tmp_path):
    path = tmp_path / "marks.csv"
    marks = pl.read_csv(table).with_columns(model=pl.Series(np.repeat(range(10), 2)))
    marks.write_csv(path)
    assert fitted(capsys, str(path), *COMMON)[0]["units"] == 20
    assert fitted(capsys, str(path), *COMMON, "--group", "model")[0]["units"] == 10
    assert main(["fit", str(path), *COMMON, "--group", "modell"]) == 1
    assert "no column 'modell'; nearest: ['model'" in capsys.readouterr().err


def test_a_negative_number_of_resamples_is_refused(table, capsys):
    with pytest.raises(SystemExit):
        main(["fit", table, "--loss", "loss", "--axis", "C", "--bootstrap", "-5"])
    assert "-5" in capsys.readouterr().err


@pytest.fixture
def studies(tmp_path):
    """Two data sets of ten models, with marks: the loss of the larger models turns up at last."""
    rng = np.random.default_rng(0)
    rows = []
    for data, floor in ((1e6, 1.8), (1e7, 2.0)):
        for i, n in enumerate(np.geomspace(1e6, 1e9, 10)):
            least = floor + (n / 1e6) ** -0.3
            for epoch, loss in ((1, least + 0.5), (2, least), (3, least + 0.2 * i - 0.01)):
                noisy = loss * np.exp(1e-3 * rng.normal())
                rows.append((f"{data:g}-{i}", data, n, epoch, noisy, 2 ** (i % 4)))
    path = tmp_path / "marks.csv"
    names = ["run", "D", "N", "epoch", "val_loss", "depth"]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(path)
    return [str(path), "--loss", "val_loss", "--axis", "N", "--bootstrap", "100"]


def test_rows_are_chosen_by_conditions(studies, capsys):
    best = [*studies, "--mark", "best"]
    law, _ = fitted(capsys, *best, "--where", "D=1M", "--where", "N < 900M")
    assert law["points"] == 9
    for condition, message in (
        ("D=5", "no row remains; D has 1000000.0, 10000000.0"),
        ("D=large", "'large' is not a number"),
        ("d=5", "no column 'd'; nearest: .*'D'"),
        ("D", "give COLUMN=VALUE"),
        ("D=9M", "no row remains"),
    ):
        assert main(["fit", *studies, "--where", condition]) == 1
        assert re.search(message, capsys.readouterr().err), condition


def test_marks_of_a_run(studies, capsys):
    best, messages = fitted(capsys, *studies, "--mark", "best", "--where", "D=1e6")
    assert best["points"] == 10
    assert best["params"]["alpha"] == pytest.approx(0.3, abs=0.05)
    assert "the best mark of 1 of 10 runs is their last" in messages
    # The last marks rise with N: both signs are shown.
    assert best["other_marks"]["params"]["slope"] > 0 > -best["params"]["gain_per_decade"]
    assert main(["fit", *studies, "--mark", "best", "--where", "D=1e6"]) == 0
    assert "the other marks of the runs give the opposite sign" in capsys.readouterr().out
    assert main(["fit", *studies, "--mark", "last", "--where", "D=1e6"]) == 1
    assert "does not fall" in capsys.readouterr().err
    assert fitted(capsys, *studies, "--mark", "all", "--group", "run")[0]["units"] == 20


def test_rows_of_one_run_are_noted_unless_they_are_grouped(studies, capsys):
    line = [*studies, "--form", "line"]
    assert "not independent" in fitted(capsys, *line)[1]
    assert "not independent" not in fitted(capsys, *line, "--group", "run")[1]
    assert "not independent" not in fitted(capsys, *line, "--mark", "best")[1]


def test_a_law_per_value_and_tests_of_equality(studies, capsys):
    found, _ = fitted(capsys, *studies, "--mark", "best", "--by", "D")
    assert [law["points"] for law in found["laws"].values()] == [10, 10]
    assert found["equal"]["E"] < 0.01 < found["equal"]["alpha"]
    assert all(law["params"]["slope"] > 0 for law in found["other_marks"].values())
    assert len(found["other_marks"]) == 2
    assert main(["fit", *studies, "--mark", "best", "--by", "D", "--leave-out", "1"]) == 1
    assert "--leave-out does not apply" in capsys.readouterr().err


def test_families_frontier_and_factors(studies, capsys):
    best = [*studies, "--mark", "best"]
    shared, _ = fitted(capsys, *best, "--family", "D")
    assert set(shared["params"]) == {"A", "alpha", "E[1000000.0]", "E[10000000.0]"}
    assert shared["params"]["E[10000000.0]"] == pytest.approx(2.0, abs=0.05)
    front, _ = fitted(capsys, *best, "--frontier", "--confidence", "0.5", "--seed", "3")
    assert (front["points"], front["confidence"]) == (10, 0.5)
    law, _ = fitted(capsys, *best, "--form", "factors", "--factors", "N,depth", "--family", "D")
    assert {"N", "depth", "level[1000000.0]"} <= set(law["params"])


@pytest.mark.parametrize("form", ["tied", "repeated", "overfitted"])
def test_forms_of_n_and_d_predict_the_left_out_run(table, capsys, form):
    unique = [] if form == "tied" else ["--unique", "U"]
    words = [table, "--form", form, *COMMON, *unique, "--leave-out", "1"]
    found, _ = fitted(capsys, *words)
    assert len(found["left_out"]) == 5
    assert max(abs(row["error"]) for row in found["left_out"]) < 0.1


def test_isoflop_takes_a_minimum_a_tolerance_and_weights(table, capsys, tmp_path):
    words = [table, "--form", "isoflop", *COMMON, "--minimum", "window", "--weighted"]
    found, _ = fitted(capsys, *words, "--budget-tolerance", "0.05", "--noise", "1e-3")
    assert len(found["budgets"]) == 4
    heavy, _ = fitted(capsys, *words, "--weight", "N")
    assert heavy["params"] != found["params"]
    assert found["params"]["exponent"] == pytest.approx(0.51, abs=0.05)
    assert main(["fit", table, *COMMON, "--minimum", "akima"]) == 1
    assert "--minimum akima applies to --form isoflop only" in capsys.readouterr().err
    # The best size of a metric that rises is that of its highest value.
    rises = tmp_path / "rises.csv"
    pl.read_csv(table).with_columns(auc=1 - pl.col("loss") / 10).write_csv(rises)
    words = [str(rises), "--form", "isoflop", "--n", "N", "--axis", "C", "--metric", "auc"]
    higher, _ = fitted(capsys, *words, "--at", "1T", "--leave-out", "1")
    least, _ = fitted(capsys, table, "--form", "isoflop", *COMMON)
    assert higher["params"] == pytest.approx(least["params"], rel=1e-6)
    assert higher["budgets"][0]["metric"] == pytest.approx(1 - least["budgets"][0]["metric"] / 10)
    assert higher["left_out"][0]["observed"] == pytest.approx(least["budgets"][-1]["optimum"])
    assert higher["prediction"]["point"] == [1e12]


def test_families_and_weights_predict_left_out_runs(studies, table, capsys):
    best = [*studies, "--mark", "best", "--family", "D", "--leave-out", "2"]
    found, _ = fitted(capsys, *best)
    predicted = {row["run"]: row for row in found["left_out"]}
    assert set(predicted) == {f"{data}-{i}" for data in ("1e+06", "1e+07") for i in (8, 9)}
    assert max(abs(row["error"]) for row in predicted.values()) < 0.02
    gap = predicted["1e+07-9"]["predicted"] - predicted["1e+06-9"]["predicted"]
    assert gap == pytest.approx(0.2, abs=0.02)
    line = [table, *COMMON, "--form", "line", "--leave-out", "1"]
    equal, weighted = (fitted(capsys, *line, *w)[0] for w in ([], ["--weight", "N"]))
    assert len(weighted["left_out"]) == 5
    assert weighted["left_out"][0]["predicted"] != equal["left_out"][0]["predicted"]
    # Above the depth of 4 only one family has runs, which the fit of the others does not know.
    few = ["--where", "N>4e6", "--family", "depth", "--leave-out", "5"]
    assert main(["fit", *studies, "--mark", "best", *few]) == 1
    assert "has no run below the 5 largest budgets: leave out fewer" in capsys.readouterr().err


GOOD = [(f"r{i}", f"{10.0 ** (16 + i / 2)}", f"{1.8 + 1.5 * 10 ** (-i / 8)}") for i in range(9)]


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        ([("x", "-1e18", "2"), ("y", "0", "2")], [], "left out x: C is -1e+18, not a positive"),
        ([("x", "1e18", "inf")], [], "left out x: loss is not a finite number, but inf"),
        ([], ["--at", "1e26"], "compute is 6.0 decades above the largest run's"),
        ([], ["--at", "1e-300"], "compute is 316.0 decades below the smallest run's"),
        ([("x", "", "2")] * 60, [], "left out 10 more rows"),
        ([("x", "1e18", "0")], [], "!run x: metric 0 <= 0 has no logarithm; leave the run out"),
        ([], ["--axis", "loss"], "!'loss' is both the metric and a scale"),
        ([], ["--form", "factors", "--factors", "C,C"], "!give each column once"),
        ([], ["--form", "factors", "--factors", "C", "--leave-out", "1"], "!factors has none"),
        ([], ["--where", "run>3"], "!run has text, e.g. 'r0', which has no order among numbers"),
        ([], ["--mark", "last", "--epoch", "run"], "!column 'run' is String, not numeric"),
        ([("a", "1e18", "2")] * 3, ["--group", "none"], "!no column 'none'"),
        ([(f"q{i}", f"{1e18 + i}", "2") for i in range(20_001)], [], "!20,010 rows: a fit takes"),
    ],
)
def test_odd_rows_are_left_out_or_refused_in_words(tmp_path, capsys, rows, words, message):
    path = tmp_path / "odd.csv"
    path.write_text("\n".join(map(",".join, [("run", "C", "loss"), *GOOD, *rows])), "utf-8")
    status = main(["fit", str(path), "--axis", "C", "--loss", "loss", "--bootstrap", "20", *words])
    out, err = capsys.readouterr()
    assert message.removeprefix("!") in err
    assert (status, "9 runs" in out) == ((1, False) if message.startswith("!") else (0, True))


def test_rows_without_a_label_or_a_weight_are_left_out(tmp_path, capsys):
    rows = [("run", "C", "loss", "kind", "w"), *((*r, k, "1") for k in "ab" for r in GOOD)]
    rows += [("x", "1e18", "2", "", "1"), ("y", "1e18", "2", "a", "")]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(map(",".join, rows)))
    words = [str(path), "--axis", "C", "--loss", "loss", "--bootstrap", "0"]
    law, messages = fitted(capsys, *words, "--group", "kind", "--form", "line", "--weight", "w")
    assert law["points"] == 18
    assert "left out x: kind is empty" in messages
    assert "left out y: w is empty, not a positive number" in messages


def test_given_optima_and_rising_surfaces(table, capsys, tmp_path):
    law, _ = fitted(capsys, table, "--form", "loglog", "--metric", "N", "--axis", "C")
    rows = pl.read_csv(table)
    slope = np.polyfit(np.log(rows["C"]), np.log(rows["N"]), 1)[0]
    assert law["params"]["exponent"] == pytest.approx(slope)
    path = tmp_path / "rises.csv"
    rows.with_columns(auc=1 - pl.col("loss") / 10).write_csv(path)
    words = ["--form", "chinchilla", "--n", "N", "--d", "D", "--metric", "auc"]
    law, _ = fitted(capsys, str(path), *words, "--bootstrap", "0")
    assert 0.75 < law["params"]["ceiling"] < 0.9
