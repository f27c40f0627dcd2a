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


def test_diversity() -> None:
    import diversity

    study = study_of("diversity")
    measures = dict.fromkeys(diversity.COLUMNS, 1.0)
    replay = {"exact": 0.5, "replay": 0.4, "low": 0.3, "high": 0.6, "matched": 10}
    results = [
        {"world": world, "epochs": epochs, "policy": policy, "seed": seed, "auc": 0.7}
        | measures
        | replay
        for world, epochs, _ in diversity.CASES
        for policy in diversity.POLICIES
        for seed in SEEDS
    ]
    diversity.add_references(study, [r for r in results if r["seed"] == 0])
    diversity.add_policies(study, results)
    diversity.add_differences(study, results)
    diversity.add_replay(study, results)
    assert cells(study, "differences").count(NO_CHANGE) == 3 * 4 * len(diversity.COLUMNS)
    assert cells(study, "replay").count("3 of 3") == 3 * 4
    require_recorded(study)
