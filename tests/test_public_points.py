"""The questions of public_points.py on made-up points with the effects of the published ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
ACTIONS = ("is_click", "long_view", "is_like", "is_follow", "is_comment", "is_forward")
WORTH = 12.0  # R_D of the made-up marks
SIZES = (1e5, 4e5, 8e5, 4e6, 8e6)


@pytest.fixture(scope="module", autouse=True)
def on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        yield


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    return {
        "srt_runs": srt_runs(),
        "srt_marks": srt_marks(),
        "unirank_scaling": unirank_scaling(),
        "unirank_metrics": unirank_metrics(),
        "olmo_ladder": olmo_ladder(),
        "gemstones": gemstones(),
        **designs(),
    }


def test_made_up_effects_give_the_expected_answers_and_the_recorded_tables(
    tables: dict[str, pl.DataFrame],
) -> None:
    """All but the worth of a repeat, which comes out with a floor per data size only."""
    import public_points as public
    from lib.results import Study, read_study

    study = Study.of("public_points.py", "Question?")
    few = {"repeats": 2, "curves": 200}
    answers = {
        name: answer(study, tables, few.get(name, 30)) for name, answer in public.QUESTIONS.items()
    }
    expected = {name: answer.found for name, answer in answers.items() if not answer.agrees}
    assert expected.keys() == {"repeats"}, expected
    assert answers["repeats"].why
    assert [name for name, answer in answers.items() if answer.figure is None] == ["losses"]
    public.add_answers(study, list(answers.values()))
    added = {table.name: [column.name for column in table.columns] for table in study.tables}
    recorded = read_study(EXPERIMENTS / "results" / "public_points.json")["tables"]
    assert added == {name: [c.name for c in table.columns] for name, table in recorded.items()}
    repeats = next(table.rows for table in study.tables if table.name == "repeats")
    rows = [row for row in repeats if row[6] is not None and row[:3:2] != ["loss", "all"]]
    worth = [(row[3], value_of(row[6])) for row in rows]
    own = [value for floor, value in worth if floor == "per data size"]
    assert own == pytest.approx([WORTH] * 5, rel=0.02)  # loss up to its least, and NDCG
    one = [value for floor, value in worth if floor == "one"]
    assert one
    assert [value for value in one if 0.5 * WORTH < value < 2 * WORTH] == []
    assert repeats[0][7].startswith("refused, the loss does not fall with")


def value_of(cell: Any) -> float:
    return float(cell["value"] if isinstance(cell, dict) else cell)


def test_points_without_an_effect_give_another_answer(tables: dict[str, pl.DataFrame]) -> None:
    from lib.public_points import designs, factors, ladder, marks, spread
    from lib.results import Study

    def answer(question: Any, **changed: pl.DataFrame) -> Any:
        return question.answer(Study.of("public_points.py", "Question?"), tables | changed, 30)

    runs = tables["srt_runs"]
    assert not answer(marks, srt_runs=runs.filter(pl.col("D") > SIZES[0])).agrees
    flat = runs.with_columns(best_valid_ndcg5=0.1 - pl.col("best_valid_ndcg5"))
    assert "NDCG@5 improves with depth" in answer(factors, srt_runs=flat).found
    auc = tables["unirank_metrics"]
    narrow = pl.when(model="OneTrans").then(0.8 + 0.1 * (pl.col("auc") - 0.8)).otherwise("auc")
    assert not answer(spread, unirank_metrics=auc.with_columns(auc=narrow)).agrees
    worse = pl.col("c4_loss") * pl.when(role="target").then(1.1).otherwise(1.0)
    found = answer(ladder, olmo_ladder=tables["olmo_ladder"].with_columns(worse)).found
    assert found.startswith("0 of 2 inside")
    falls = tables["onetrans"].with_columns(ctr_auc_delta_pct=pl.Series([0, -1, 1] * 3))
    assert not answer(designs, onetrans=falls).agrees


def test_public_points_says_what_is_missing(tmp_path: Path) -> None:
    from lib.public_points.points import read_points

    (tmp_path / "srt_runs.csv").write_text("run\n")
    with pytest.raises(SystemExit, match=r"has no srt_marks.csv, .*docs/public-points.md lists"):
        read_points(tmp_path)


def srt_runs() -> pl.DataFrame:
    """Loss and NDCG rise with width; the last loss turns around on the three smaller data sizes."""
    rng = np.random.default_rng(0)
    rows = []
    for negatives, floor in ((100, 3.5), (300, 4.6)):
        for k, d in enumerate(SIZES):
            for wider, deeper in [(i, j) for i in range(4) for j in range(3)]:
                best = floor + 0.7 - 0.05 * wider - 0.01 * deeper + rng.normal(0, 0.001)
                ndcg = 0.04 + 0.02 * wider - 0.003 * deeper + rng.normal(0, 0.0005)
                rows.append(
                    {
                        "negatives": negatives,
                        "N": 1000 * 4**wider * 2**deeper,
                        "D": int(d),
                        "width": 32 * 2**wider,
                        "layers": 2**deeper,
                        "best_valid_loss": best,
                        "last_valid_loss": best + 0.3 * wider * (k < 3),
                        "best_valid_ndcg5": ndcg,
                        "last_valid_ndcg5": ndcg,
                    }
                )
    return pl.DataFrame(rows)


def srt_marks() -> pl.DataFrame:
    """A repeat has the worth R_D = WORTH; floors differ between data sizes; loss then turns up."""
    rows = []
    for negatives in (100, 300):
        for k, d in enumerate(SIZES[:3]):
            for n in (1e4, 1e5, 1e6):
                for epoch in (2, 5, 15, 30, 50):
                    worth = d * (1 + WORTH * (1 - np.exp(-(epoch - 1) / WORTH)))
                    fall = 5 * n**-0.3 + 4 * worth**-0.25
                    turn = 0.3 * np.log10(n) if epoch == 50 else 0.0
                    rows.append(
                        {
                            "run": f"{negatives}/{d:g}/{n:g}",
                            "negatives": negatives,
                            "N": int(n),
                            "D": int(d),
                            "epoch": epoch,
                            "D_seen": int(d * epoch),
                            "valid_ndcg5": 0.7 + 0.08 * k - fall,
                            "valid_loss": 3.0 + 0.4 * k + fall + turn,
                        }
                    )
    return pl.DataFrame(rows)


def unirank_scaling() -> pl.DataFrame:
    slopes = {  # change of click AUC and of the mean AUC per doubling of FLOPs
        ("OneTrans", "width"): (0.0, 0.01),
        ("OneTrans", "length"): (0.02, 0.01),
        ("OneTrans", "depth"): (0.02, 0.01),
        ("RankMixer", "width"): (0.0, 0.0),
        ("RankMixer", "length"): (-0.02, -0.02),
        ("RankMixer", "depth"): (0.0, 0.0),
    }
    wiggle = (0.001, -0.001, 0.0, 0.0, -0.001, 0.001)
    return pl.DataFrame(
        [
            {
                "model": model,
                "axis": axis,
                "token_dim": 32,
                "train_flops": 1e16 * 2.0**k,
                "test_is_click_auc": 0.8 + click * k + wiggle[k],
                "test_auc_mean": 0.8 + mean * k + wiggle[k],
                "test_logloss_sum": 1.0 + wiggle[k],
            }
            for (model, axis), (click, mean) in slopes.items()
            for k in range(2 if (model, axis) == ("OneTrans", "depth") else 6)
        ]
    )


def unirank_metrics() -> pl.DataFrame:
    models = [("OneTrans", "main", 0.80), ("OneTrans", "variant", 0.75), ("EST", "main", 0.78)]
    common = {"dataset": "KuaiRand_Video", "split": "test"}
    return pl.DataFrame(
        [
            common | {"model": model, "group": group, "task": task, "auc": auc}
            for task in ACTIONS
            for model, group, auc in models
        ]
    )


def olmo_ladder() -> pl.DataFrame:
    from lib.public_points.ladder import LOSSES

    rng = np.random.default_rng(2)
    sizes = (2e8, 4e8, 6e8, 8e8, 1e9)
    grid = [("ladder", n, m) for n in sizes for m in (0.5, 1, 2, 5, 10)]
    grid += [("rerun", n, 1) for n in sizes]
    grid += [("target", n, 25) for n in (2e9, 3e9)]
    rows = []
    for role, n, multiple in grid:
        d = 20 * multiple * n
        loss = (1.8 + 400 * n**-0.33 + 500 * d**-0.3) * (1 + rng.normal(0, 0.001))
        row = {"role": role, "size": f"{n:g}", "chinchilla_multiple": float(multiple)}
        rows.append(row | {"N": n, "D": d, "flops": 6 * n * d} | dict.fromkeys(LOSSES, loss))
    return pl.DataFrame(rows)


def gemstones() -> pl.DataFrame:
    """Loss rises by 0.5 % of itself with each doubling of width / depth."""
    rows = []
    for series, floor in (("constant_lr", 2.1), ("half_lr", 2.15), ("cooled", 2.0)):
        for width in (256, 512, 1024):
            for depth in (4, 16, 64):
                for d in (1e10, 3e10, 1e11):
                    n = 12 * width**2 * depth
                    loss = floor + 260 * n**-0.293 + 6e6 * d**-0.713
                    loss *= 1 + 0.005 * np.log2(width / depth / 32)
                    row = {"series": series, "width": width, "depth": depth, "N": n, "D": d}
                    rows.append(row | {"flops": 6 * n * d, "loss": loss})
    return pl.DataFrame(rows)


def designs() -> dict[str, pl.DataFrame]:
    flops = np.geomspace(0.1, 10, 9)
    unified = ["two stages"] * 7 + ["unified"] * 2
    names = [f"model {k}" for k in range(9)]
    common: dict[str, Any] = {"type": unified, "model": names}
    onetrans = common | {
        "table": ["table 2"] * 9,
        "tflops_batch_2048": flops,
        "ctr_auc_delta_pct": np.log10(flops) + 1,
        "ctr_auc_base": [0.8] * 9,
    }
    hyformer = common | {
        "table": ["table 1"] * 9,
        "tflops": flops,
        "auc": [0.648, 0.647, 0.649] * 3,
        "feature_interaction": [None] * 9,
    }
    return {"onetrans": pl.DataFrame(onetrans), "hyformer": pl.DataFrame(hyformer)}
