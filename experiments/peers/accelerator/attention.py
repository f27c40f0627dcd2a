"""Part `attention`: `attend` against FlexAttention, XLA and cuDNN."""

import sys
from collections.abc import Iterator
from typing import Any

from lib.results import Cell, Column, Study

from peers.accelerator.parts import Results, Run, Sizes
from peers.cases import Case, allowed_pairs
from peers.race import Contestant, milliseconds, race
from peers.workers import Worker, quartiles

FORMS = ("attend", "flex", "xla", "cudnn")


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yield history at all lengths and widths, packed rows, and in-session attention."""
    at = sizes.lengths[0]
    for width in sizes.widths:
        yield sizes.case("history", at, width, 1, "bfloat16")
        yield sizes.case("in_session", at, width, 1, "bfloat16")
    for length in sizes.lengths[1:]:
        for width in sizes.widths:
            yield sizes.case("history", length, width, 1, "bfloat16")
    for width in sizes.widths:
        yield sizes.case("history", at, width, 4, "bfloat16")


def attention(run: Run) -> Results:
    """Measure forward and backward; outputs and gradients must be those of `attend`."""
    ours = Worker(sys.executable, "attention_jax", run.env)
    workers = [ours]
    entered = {"attend": Contestant(ours, "auto")}
    if run.torch:
        workers.append(Worker(run.torch, "attention_torch", run.env))
        entered["flex"] = Contestant(workers[1], "flex")
    entered |= {form: Contestant(ours, form) for form in ("xla", "cudnn")}
    print(*(worker.ask("hello") for worker in workers), sep="\n", flush=True)
    for case in run.in_time(cases(run.sizes)):
        result = race(entered, case, run.rounds, checked_rows=2)
        result["flops"] = 14 * case.width * case.heads * allowed_pairs(case)
        shown = (f"{form} {milliseconds(result, form)}" for form in entered)
        print(case.kind, case.tokens, case.width, case.members, *shown, sep=", ", flush=True)
        yield result
    for worker in workers:
        worker.close()


def add_attention(study: Study, results: list[dict[str, Any]]) -> None:
    rows: list[list[Cell]] = []
    for r in results:
        median = {name: quartiles(s)[1] for name, s in r["seconds"].items()}
        ours, flex = median.get("attend"), median.get("flex")
        cells = [None if s is None else 1e3 * s for s in map(median.get, FORMS)]
        rate = None if ours is None else r["flops"] / ours / 1e12
        ratio = flex / ours if flex and ours else None
        rows.append([r["kind"], r["width"], r["tokens"], r["members"], *cells, ratio, rate])
    columns = [
        Column("attention"),
        Column("K", "d"),
        Column("T", "d"),
        Column("members of a row", "d"),
        *(Column(f"{name}, ms", ".2f") for name in FORMS),
        Column("flex / attend", ".2f"),
        Column("attend, TFLOP/s", ".3g"),
    ]
    study.add("attention", "Forward and backward: medians over the rounds.", columns, rows)
