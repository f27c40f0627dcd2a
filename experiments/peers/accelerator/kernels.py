"""Parts `check` and `tune`: are the kernels right on this device, and with which tiles fastest?"""

import dataclasses
import functools
import itertools
import sys
from pathlib import Path
from typing import Any

from lib.results import Cell, Column, Study

from ligr_jax.ops.attention import tilings
from peers.accelerator.parts import Results, Run
from peers.cases import Case
from peers.race import TOLERANCE
from peers.workers import Worker, alternate, quartiles

KINDS = ("history", "in_session")
# Owned and seen tokens, warps, pipeline stages. Tiles that do not fit the shared memory fail.
FORWARD = ((128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 2), (64, 64, 4, 3), (64, 32, 4, 2))
BACKWARD = ((64, 64, 4, 2), (64, 64, 8, 2), (128, 64, 8, 2), (64, 32, 4, 2), (32, 32, 4, 2))
LARGEST = (256, 512, 1024)  # tokens of a TPU's tile


def check(run: Run) -> Results:
    """Compare `attend`'s kernel, and plain XLA, with the dense form on this device."""
    worker = Worker(sys.executable, "kernels_jax", run.env)
    sizes = run.sizes
    cases = itertools.product(KINDS, sizes.widths, ("bfloat16", "float32"), sizes.activations)
    for kind, width, dtype, activation in run.in_time(cases):
        case = sizes.case(kind, sizes.checked, width, 4, dtype)
        for form in ("auto", "blocked"):
            errors = worker.ask(
                "errors", case=dataclasses.asdict(case), form=form, activation=activation
            )
            result = {"kind": kind, "width": width, "dtype": dtype, "activation": activation}
            result |= {"form": form, "errors": errors}
            if not max(errors) <= TOLERANCE[dtype]:
                raise SystemExit(f"wrong on this device: {result}")
            yield result
    worker.close()


def add_check(study: Study, results: list[dict[str, Any]]) -> None:
    rows: list[list[Cell]] = []
    for form, dtype in itertools.product(("auto", "blocked"), TOLERANCE):
        of = [r for r in results if (r["form"], r["dtype"]) == (form, dtype)]
        if of:
            largest = [max(errors) for errors in zip(*(r["errors"] for r in of))]
            rows.append([form, dtype, len(of), *largest])
    names = (f"{name}, largest error" for name in ("output", "dQ", "dK", "dV"))
    columns = [
        Column("implementation"),
        Column("dtype"),
        Column("cases", "d"),
        *(Column(name, ".1e") for name in names),
    ]
    caption = (
        "Against the dense form in float32, relative to the largest value. Cases are masks, widths "
        "and activations."
    )
    study.add("check", caption, columns, rows)


def tune(run: Run) -> Results:
    """Measure tiles of the kernel; the fastest ones of each case are the result."""
    worker = Worker(sys.executable, "kernels_jax", run.env)
    device = worker.ask("device")
    cases = itertools.product(run.sizes.widths, KINDS)
    for width, kind in run.in_time(cases):
        case = run.sizes.case(kind, run.sizes.tuned, width, 1, "bfloat16")
        chosen = worker.ask("chosen", case=dataclasses.asdict(case))
        race = functools.partial(_medians, worker, case, run.rounds)
        candidates: dict[str, Any] = {"chosen": chosen["sizes"]}
        if isinstance(chosen["sizes"], int):
            candidates |= {str(size): size for size in LARGEST[: run.sizes.tiles]}
        else:
            forward, backward = chosen["sizes"]
            tiles = {str(tile): [list(tile), backward] for tile in FORWARD[: run.sizes.tiles]}
            seconds = race({"chosen": [forward, backward], **tiles}, backward=False)
            forward = min(seconds, key=lambda name: seconds[name])
            forward = (candidates | tiles)[forward][0]
            candidates |= {str(tile): [forward, list(tile)] for tile in BACKWARD[: run.sizes.tiles]}
        seconds = race(candidates, backward=True)
        fastest = min(seconds, key=lambda name: seconds[name])
        yield {
            "device": device,
            "name": chosen["name"],
            "sizes": candidates[fastest],
            "seconds": seconds[fastest],
            "chosen": seconds.get("chosen"),
        }
    worker.close()


def _medians(
    worker: Worker, case: Case, rounds: int, candidates: dict[str, Any], backward: bool
) -> dict[str, float]:
    """Return the median seconds of the sizes that fit the device."""
    samples = {}
    for name, sizes in candidates.items():
        try:
            worker.ask(
                "prepare",
                key=name,
                case=dataclasses.asdict(case),
                sizes=sizes,
                backward=backward,
            )
        except RuntimeError as e:
            print(f"  {name}: {e}", flush=True)
        else:
            samples[name] = functools.partial(worker.ask, "sample", key=name)
    seconds = alternate(samples, rounds)
    worker.ask("forget")
    return {name: quartiles(times)[1] for name, times in seconds.items()}


def store(results: list[dict[str, Any]], path: Path) -> None:
    """Write the fastest tiles to the file that `attend` reads."""
    for result in results:
        tilings.store_tilings(result["device"], {result["name"]: result["sizes"]}, path)
    print(f"{path}: {len(results)} tilings")


def add_tune(study: Study, results: list[dict[str, Any]]) -> None:
    rows: list[list[Cell]] = [
        [r["name"], str(r["sizes"]), 1e3 * r["seconds"], r["chosen"] and r["chosen"] / r["seconds"]]
        for r in results
    ]
    columns = [
        Column("kernel, mask, dtype, K"),
        Column("fastest tiles"),
        Column("ms", ".2f"),
        Column("default tiles, over it", ".2f"),
    ]
    caption = "Forward and backward with the fastest tiles: medians over the rounds."
    study.add("tilings", caption, columns, rows)
