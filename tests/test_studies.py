"""The report functions of studies, on made-up runs: they add the tables that the results record."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        yield


def runs(changes: list[str], **columns: Any) -> pl.DataFrame:
    """Return a run per change and seed: every metric of a seed is equal for all changes."""
    from lib.comparison import TASKS

    rows = []
    for change in changes:
        for seed in SEEDS:
            row = {"change": change, "config/train.seed": seed, "validation/ne": 0.9 + 0.01 * seed}
            row |= {"params_dense": 1000.0, "params_tables": 2000}
            for task in TASKS:
                for part in ("", "cold_items/"):
                    metrics = {"auc": 0.6, "ne": 0.9, "ece": 0.01, "calibration": 1.0}
                    metrics = {f"{part}{m}": v * (1 + 0.1 * seed) for m, v in metrics.items()}
                    row |= {f"validation/{task}/{m}": v for m, v in metrics.items()}
            rows.append(row | columns)
    return pl.DataFrame(rows)


def require_recorded(study: Any, exact: bool = True) -> None:
    """Compare the names of tables and columns with those in `experiments/results`."""
    from lib.results import read_study

    recorded = read_study(EXPERIMENTS / "results" / f"{study.name}.json")["tables"]
    added = {table.name: [column.name for column in table.columns] for table in study.tables}
    for name, table in recorded.items():
        names = [column.name for column in table.columns]
        assert names == (added[name] if exact else added[name][: len(names)])


def study_of(name: str) -> Any:
    from lib.results import Study

    return Study.of(f"{name}.py", "Question?")


def cells(study: Any, name: str) -> list[Any]:
    (table,) = (table for table in study.tables if table.name == name)
    return [cell for row in table.rows for cell in row]


METRICS = ("ne", "long_dwell/auc", "contribution/auc")
NO_CHANGE = {"value": pytest.approx(0), "low": pytest.approx(0), "high": pytest.approx(0)}


def test_ligr_paper() -> None:
    import ligr_paper as paper

    study = study_of("ligr_paper")
    table = runs(["none", "model.set_depth=0", *paper.CHANGES])
    paper.setwise(study, table)
    paper.changes(study, table)
    assert cells(study, "table4").count(NO_CHANGE) == 3
    names = [*paper.ALONE, *(f"content,{name}" for name in paper.WITH_CONTENT)]
    single = runs(["none", *(f"model.features={name},dwell_s" for name in names)])
    rank = 0.001 * pl.int_range(pl.len())  # rank correlations need values that differ
    ranked = [pl.col(f"validation/{metric}") + rank for metric in METRICS[1:]]
    paper.features(study, single.with_columns(ranked))
    n = 9
    sizes = {f"config/{k}": [1, 2, 3] * 3 for k in ("data.seq_len", "model.depth")}
    metrics = {f"validation/{m}": np.linspace(0.6, 0.7, n) for m in METRICS}
    grown = pl.DataFrame(
        {
            **sizes,
            **metrics,
            "config/model.table_width": [1, 2, 3] * 3,
            "config/model.width": [1, 2, 3] * 3,
            "of": ["seq_len"] * 3 + ["depth"] * 3 + ["embed_dim"] * 3,
            "flops_paper": np.geomspace(1e10, 1e12, n),
            "flops_model": np.geomspace(1e10, 1e12, n),
        }
    )
    paper.ladder(study, grown)
    paper.one_dimension(study, grown)
    assert cells(study, "figures10-12").count("4 of 6") == 3  # AUC rises, and NE too
    require_recorded(study, exact=False)


def test_lirank_ablation() -> None:
    import lirank_ablation as lirank

    study = study_of("lirank_ablation")
    table = runs(list(lirank.ARMS))
    for title, (judged, lines) in lirank.TABLES.items():
        lirank.add_ablations(study, title, table, judged, lines)
    lirank.add_calibration(study, table)
    assert cells(study, "calibration").count(NO_CHANGE) == 9
    require_recorded(study, exact=False)


def test_semantic_ids() -> None:
    import semantic_ids as sid

    study = study_of("semantic_ids")
    means = {f"mean/{p}{m}": sid.mean(p, m) for p in sid.SLICES.values() for m in ("ne", "auc")}
    table = runs(list(sid.ARMS)).with_columns(**means)
    sid.add_table5(study, table)
    for name, part in sid.SLICES.items():
        sid.add_arms(study, table, name, part)
    sid.add_pairs(study, table)
    assert cells(study, "pairs").count(NO_CHANGE) == 4
    require_recorded(study)


def test_architectures() -> None:
    import architectures

    study = study_of("architectures")
    tables = [
        runs(["none"], sweep=arm, flops_model=1e9 * t**2).with_columns(
            pl.lit(t).alias("config/data.seq_len"),
            pl.lit(t).alias("config/model.width"),
            pl.lit(100).alias("params/dense"),
            pl.col("validation/ne") - 0.001 * t,
        )
        for arm in architectures.RIVALS
        for t in (16, 32, 64, 96)
    ]
    table = pl.concat(tables)
    architectures.add_measured(study, table, dict.fromkeys(architectures.RIVALS, 2.0**-7))
    architectures.add_compared(study, table)
    assert cells(study, "paired").count(NO_CHANGE) == 3 * (len(architectures.RIVALS) - 1)
    require_recorded(study, exact=False)


def test_incremental() -> None:
    import incremental

    study = study_of("incremental")
    results = [
        {"seed": seed, "arm": arm, "day": day, "ne": 0.9, "auc": 0.7, "targets": 10}
        for seed in SEEDS
        for arm in incremental.ARMS
        for day in range(incremental.DAYS)
    ]
    incremental.add_methods(study, results)
    incremental.add_differences(study, results)
    assert cells(study, "differences").count(NO_CHANGE) == 4
    require_recorded(study)


def test_public_points() -> None:
    """Made-up points with the effects of the published ones give the answers that were expected."""
    import public_points as public

    study = study_of("public_points")
    tables = made_up_points()
    marks = public.add_marks(study, tables, 40)
    assert marks.agrees, marks.found
    # Without one of the data sizes that the last epoch inverts, the answer is another.
    fewer = {**tables, "srt_runs": tables["srt_runs"].filter(pl.col("D") > 1e5)}
    assert not public.add_marks(study_of("public_points"), fewer, 40).agrees
    factors = public.add_factors(study, tables, 40)
    assert factors.agrees, factors.found
    repeats = public.add_repeats(study, tables, 2)
    assert repeats.found.startswith("loss: refused, the loss does not fall with N; 1 - NDCG@5: R_D")
    curves = public.add_curves(study, tables, 200)
    assert curves.agrees, curves.found
    spread = public.add_spread(study, tables, 0)
    assert spread.agrees, spread.found
    ladder = public.add_ladder(study, tables, 40)
    assert ladder.agrees, ladder.found
    worse = pl.col("c4_loss") * pl.when(role="target").then(1.1).otherwise(1.0)
    missed = {**tables, "olmo_ladder": tables["olmo_ladder"].with_columns(worse)}
    found = public.add_ladder(study_of("public_points"), missed, 40).found
    assert found.startswith("0 of 2 inside")
    public.add_answers(study, [marks, factors, repeats, curves, spread, ladder])
    assert cells(study, "answers").count("yes") == 5
    require_recorded(study)


def test_public_points_says_what_is_missing(tmp_path: Path) -> None:
    import public_points as public

    (tmp_path / "srt_runs.csv").write_text("run\n")
    with pytest.raises(SystemExit, match=r"has no srt_marks.csv, .*docs/public-points.md lists"):
        public.read_points(tmp_path)


def made_up_points() -> dict[str, pl.DataFrame]:
    """Return points with the effects that public_points.py expects of the published ones."""
    rng = np.random.default_rng(0)

    def noise(sd: float) -> float:
        return float(rng.normal(0, sd))

    srt_runs, srt_marks = [], []
    for k, d in enumerate((1e5, 4e5, 8e5, 4e6, 8e6)):
        for wider, deeper in [(i, j) for i in range(4) for j in range(3)]:
            n = 1000 * 4**wider * 2**deeper
            best = 4.2 - 0.05 * wider - 0.01 * deeper + noise(0.001)
            ndcg = 0.04 + 0.02 * wider - 0.003 * deeper + noise(0.0005)
            run = {"run": f"{d:g}/{wider}/{deeper}", "N": n, "D": int(d)}
            run |= {"width": 32 * 2**wider, "layers": 2**deeper}
            metrics = {"best_valid_loss": best, "last_valid_loss": best + 0.3 * wider * (k < 3)}
            metrics |= {"best_valid_ndcg5": ndcg, "last_valid_ndcg5": ndcg}
            srt_runs.append(run | metrics)
            for epoch in (5, 15, 50):
                seen = d * epoch
                gap = 0.3 + n**-0.3 + seen**-0.1
                loss = 4 + 0.01 * np.log(n) - 0.02 * np.log(seen)
                marks = {"epoch": epoch, "D_seen": int(seen), "valid_ndcg5": 1 - gap}
                srt_marks.append(run | marks | {"valid_loss": loss})
    slopes = {  # change of click AUC and of the mean AUC per doubling of FLOPs
        ("OneTrans", "width"): (0.0, 0.01),
        ("OneTrans", "length"): (0.02, 0.01),
        ("OneTrans", "depth"): (0.02, 0.01),
        ("RankMixer", "width"): (0.0, 0.0),
        ("RankMixer", "length"): (-0.02, -0.02),
        ("RankMixer", "depth"): (0.0, 0.0),
    }
    wiggle = (0.001, -0.001, 0.0, 0.0, -0.001, 0.001)
    scaling = [
        {"model": model, "axis": axis, "token_dim": 32, "train_flops": 1e16 * 2.0**k}
        | {
            "test_is_click_auc": 0.8 + click * k + wiggle[k],
            "test_auc_mean": 0.8 + mean * k + wiggle[k],
            "test_logloss_sum": 1.0 + wiggle[k],
        }
        for (model, axis), (click, mean) in slopes.items()
        for k in range(2 if (model, axis) == ("OneTrans", "depth") else 6)
    ]
    ranks = [
        {"model": model, "group": group, "dataset": "KuaiRand_Video", "split": "test"}
        | {"task": task, "auc": auc}
        for task in ("is_click", "long_view", "is_like", "is_follow", "is_comment", "is_forward")
        for model, group, auc in (
            ("OneTrans", "main", 0.80),
            ("OneTrans", "variant", 0.75),
            ("EST", "main", 0.78),
        )
    ]
    grid = [("ladder", n, m) for n in (2e8, 4e8, 6e8, 8e8, 1e9) for m in (0.5, 1, 2, 5, 10)]
    grid += [("rerun", n, 1) for n in (2e8, 4e8, 6e8, 8e8, 1e9)]
    grid += [("target", n, 25) for n in (2e9, 3e9)]
    olmo, rng = [], np.random.default_rng(2)
    for role, n, multiple in grid:
        d = 20 * multiple * n
        loss = (1.8 + 400 * n**-0.33 + 500 * d**-0.3) * (1 + noise(0.001))
        row = {"role": role, "size": f"{n:g}", "chinchilla_multiple": float(multiple)}
        olmo.append(row | {"N": n, "D": d, "flops": 6 * n * d, "c4_loss": loss})
    tables = {"srt_runs": srt_runs, "srt_marks": srt_marks, "unirank_scaling": scaling}
    tables |= {"unirank_metrics": ranks, "olmo_ladder": olmo}
    return {name: pl.DataFrame(rows) for name, rows in tables.items()}
