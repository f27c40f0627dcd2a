"""Part `step`: whole training steps, their MFU, and all devices against one."""

import dataclasses
import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

from lib.results import Cell, Column, Study

from peers.accelerator.parts import SESSION, Results, Run, Steps
from peers.cases import Case
from peers.workers import Worker, alternate, quartiles

AGREEMENT = 2e-2  # of loss and gradient norm: activations have eight bits


def steps(run: Run) -> Results:
    """Measure steps on one device, PyTorch's steps, and steps on all devices."""
    ours = Worker(sys.executable, "step_device", run.env)
    theirs = Worker(run.torch, "step_torch_device", run.env) if run.torch else None
    flops = ours.ask("prepare_product", key="product", size=run.sizes.product)
    product = {"product": functools.partial(ours.ask, "sample", key="product")}
    reachable = flops / quartiles(alternate(product, run.rounds)["product"])[1]
    rates = {"peak": ours.ask("peak"), "product": reachable}
    print(f"product: {reachable / 1e12:.3g} TFLOP/s, peak {rates['peak'] / 1e12:.3g}", flush=True)
    devices = ours.ask("devices")
    for size in run.in_time(run.sizes.steps):
        result = {**dataclasses.asdict(size), **rates, "devices": devices}
        yield result | _measure(run, size, ours, theirs, devices)
    for worker in filter(None, (ours, theirs)):
        worker.close()


def _measure(
    run: Run, size: Steps, ours: Worker, theirs: Worker | None, devices: int
) -> dict[str, Any]:
    """Return the median seconds by contestant, the FLOPs of a device's step, and the failures."""
    batch = max(1, run.sizes.step_tokens // size.length)
    case = Case("history", size.length, SESSION, size.members, "bfloat16", batch)
    model = {**size.model, "set_depth": 0}
    rows = run.sizes.step_rows
    samples, failed, about = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        params = str(Path(folder) / "params.npz")
        fields = {"case": dataclasses.asdict(case), "table_rows": rows}
        try:
            about = ours.ask("prepare", key="one", model=model, params=params, **fields)
            samples["ligr_jax"] = functools.partial(ours.ask, "sample", key="one")
            if theirs:
                answer = theirs.ask("prepare", key="one", started=about, params=params, **fields)
                require_agreement(about, answer)
                samples["torch"] = functools.partial(theirs.ask, "sample", key="one")
        except RuntimeError as e:  # it does not fit, or one side differs
            failed["ligr_jax" if not samples else "torch"] = str(e)
    if devices > 1 and samples:
        whole = dataclasses.replace(case, batch=batch * devices)
        fields = {"case": dataclasses.asdict(whole), "table_rows": rows}
        ours.ask("prepare", key="all", model=model, devices=devices, **fields)
        samples["all devices"] = functools.partial(ours.ask, "sample", key="all")
    seconds = {k: quartiles(v)[1] for k, v in alternate(samples, run.rounds).items()}
    for worker in filter(None, (ours, theirs)):
        worker.ask("forget")
    print(size, seconds, failed, flush=True)
    return {"batch": batch, "flops": about.get("flops"), "seconds": seconds, "failed": failed}


def require_agreement(ours: dict[str, Any], theirs: dict[str, float]) -> None:
    """Check that both sides compute the same first step.

    Raises:
        RuntimeError: loss or gradient norm differ.
    """
    for name, value in theirs.items():
        if not abs(value - ours[name]) <= AGREEMENT * abs(ours[name]):
            raise RuntimeError(f"{name} is {value:.6g} in PyTorch and {ours[name]:.6g} here")


def add_steps(study: Study, results: list[dict[str, Any]]) -> None:
    rows: list[list[Cell]] = []
    for r in results:
        seconds = r["seconds"]
        one, torch, every = (seconds.get(k) for k in ("ligr_jax", "torch", "all devices"))
        cells: list[Cell] = [None] * 4
        if one:
            rate = r["flops"] / one
            tokens = r["length"] * r["batch"] / one
            cells = [1e3 * one, tokens, 100 * rate / r["peak"], 100 * rate / r["product"]]
        cells += [torch and one and torch / one, every and one and 100 * one / every]
        model = r["model"]
        shape = [model["width"], model["depth"], r["length"], r["members"], r["batch"]]
        rows.append([*shape, *cells])
    columns = [
        *(Column(name, "d") for name in ("D", "layers", "T", "members of a row", "rows")),
        Column("step, ms", ".1f"),
        Column("tokens/s", ",.0f"),
        Column("MFU, %", ".1f"),
        Column("% of the product's rate", ".1f"),
        Column("PyTorch / ligr_jax", ".2f"),
        Column("efficiency on all devices, %", ".1f"),
    ]
    caption = (
        "Whole training steps on one device: medians over the rounds. PyTorch: the same model, "
        "compiled, with FlexAttention."
    )
    study.add("step", caption, columns, rows)
