"""Part `tables`: training an embedding table on the device, against PyTorch's sparse optimizers."""

import functools
import itertools
import sys
from typing import Any

from lib.results import Cell, Column, Study

from peers.accelerator.parts import Results, Run
from peers.workers import Worker, alternate, quartiles

TORCH = ("Adagrad", "SparseAdam", "row-wise")
CONSECUTIVE = 10  # steps of a sample, so that the device and not its launches is measured


def tables(run: Run) -> Results:
    """Measure a step of one table: gather rows, reduce their gradients, update them in place."""
    ours = Worker(sys.executable, "tables_jax", run.env)
    theirs = Worker(run.torch, "tables_torch", run.env) if run.torch else None
    for rows, law in run.in_time(itertools.product(run.sizes.table_rows, ("zipf", "uniform"))):
        samples = {}
        entered: list[tuple[Worker, str]] = [(ours, "rowwise"), (ours, "host")]
        entered += [(theirs, kind) for kind in TORCH] if theirs else []
        for worker, kind in entered:
            worker.ask("prepare", kind=kind, law=law, rows=rows, count=run.sizes.lookups)
            samples[kind] = functools.partial(worker.ask, "sample", kind=kind, steps=CONSECUTIVE)
        alternate(samples, 1)  # compiles and warms
        seconds = {k: quartiles(v)[1] for k, v in alternate(samples, run.rounds).items()}
        print(law, rows, seconds, flush=True)
        yield {"law": law, "rows": rows, "seconds": seconds}
    for worker in filter(None, (ours, theirs)):
        worker.close()


def add_tables(study: Study, results: list[dict[str, Any]]) -> None:
    names = ("rowwise", "host", *TORCH)
    rows: list[list[Cell]] = [
        [r["law"], r["rows"], *(1e3 * s if (s := r["seconds"].get(k)) else None for k in names)]
        for r in results
    ]
    columns = [Column("ids"), Column("V", ",d"), *(Column(f"{k}, ms", ".2f") for k in names)]
    caption = (
        "One table, medians over the rounds: our step, what the input pipeline does for it on the "
        "host, and PyTorch's optimizers."
    )
    study.add("tables", caption, columns, rows)
