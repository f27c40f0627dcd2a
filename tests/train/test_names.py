"""A run on a log with unusual column names is trained, evaluated, exported and reported."""

import json
from pathlib import Path

import numpy as np
import pytest

from ligr_jax import cli
from ligr_jax.commands.eval import metrics_table
from ligr_jax.tables.exported import ExportedTable
from ligr_jax.train.evaluate import restore
from ligr_jax.train.optimizer import split_tables
from tests.data.logs import write_odd_log

pytestmark = pytest.mark.slow

FEATURES = ("session", "c.d", "a/b", "width_4", "g,h", "^x.*$", "i=j", 'k: "l"', "..")
ACTIONS = ("click", "x/y", "loss", "a$b$", "like")
RUN = (
    *("model.width=8", "model.heads=1", "model.depth=1", "model.table_width=4", "data.seq_len=32"),
    *("optim.batch=8", "train.steps=2", "train.log_every=1", "track.wandb=off"),
    *("model.features.c.d.rows=20", "model.features.i=j.rows=30", "mesh.data=1", "mesh.model=2"),
    'mesh.placement="g,h:row_wise",a/b:column_wise,..:table_wise,i=j:table_wise,width_4:row_wise,'
    '"k: ""l"":replicated"',
    'model.features=a/b,"g,h",c.d,i=j,width_4,..,"k: ""l"""',
    "model.actions=x/y,click,loss,a$b$",
    "eval.splits=test",
    "model.set_depth=0",
)


def test_a_run_of_odd_names(tmp_path: Path) -> None:
    log, data, run, out = (str(tmp_path / name) for name in ("log", "data", "runs/run", "export"))
    write_odd_log(Path(log), FEATURES, ACTIONS)
    assert cli.main(["prepare", log, "--out", data]) in (0, None)
    assert cli.main(["train", "--data", data, "--out", run, *RUN]) == 0
    summary = json.loads((Path(run) / "summary.json").read_text())
    assert summary["config/model.features.c.d.rows"] == 20
    evaluator, state = restore(Path(run), assignments=["mesh.data=1", "mesh.model=1"])
    numbers = evaluator(state, "test")
    said = metrics_table(numbers, "test").splitlines()
    for action, key in (("x/y", "x%2Fy"), ("click", "click"), ("a$b$", "a$b$")):
        ne = summary[f"test/{key}/ne"]
        assert numbers[f"test/{key}/ne"] == pytest.approx(ne, rel=1e-5)
        (line,) = (line for line in said if line.startswith(f"{action} "))
        assert line.split()[1] == f"{numbers[f'test/{key}/ne']:.4f}"

    assert cli.main(["export", run, "--out", out, "--candidates", "16"]) == 0
    tables = evaluator.layout.unpack(split_tables(state.params)[1])
    assert {"a/b", "..", "g,h", "c.d", "i=j", 'k: "l"'} <= tables.keys()
    for name, table in tables.items():
        rows = ExportedTable.open(Path(out), name).rows(np.arange(len(table)))
        np.testing.assert_array_equal(rows, table)

    assert cli.main(["report", str(tmp_path / "runs")]) == 0
    page = (tmp_path / "runs" / "report.html").read_text()
    assert "AUC x/y" in page
    assert len(list((tmp_path / "runs" / "figures").glob("*_auc_*.svg"))) > 0
