"""How fast are the kernels, the tables and whole training steps on this machine's accelerators?

    python experiments/accelerator.py --torch PYTHON --record     all of it, within 10 minutes
    python experiments/accelerator.py --smoke                     tiny sizes, on CPU: does it run?

For a machine with one or more NVIDIA GPUs, or a TPU VM. PYTHON is an interpreter with PyTorch for
CUDA and NumPy, possibly this one; without it only the rows of JAX are measured. The parts are:

    check       `attend`'s kernels against the dense form in float32; an error ends the run
    tune        tiles of the kernels; the fastest ones are written to the file that `attend` reads
    attention   65,536 bfloat16 tokens, forward and backward, against compiled FlexAttention with a
                block mask of the same ranges in a CUDA graph, and against jax.nn with XLA and cuDNN
    step        training steps of LiGR with their MFU, against the same model in PyTorch (compiled,
                FlexAttention), and on all devices against one
    tables      the step of one embedding table against PyTorch's sparse optimizers

Equal arrays for all; outputs, gradients and losses are compared before timing. Programs are warm
and run in turns; times are medians over the rounds. MFU is the FLOPs of `ligr_jax.cost.flops`
(forward times three) over the data sheet's peak. Every part has a share of --minutes and leaves out
its last cases when that is over; --out has the results so far.

Expected: not measured yet. Time: at most --minutes, and the case that runs then.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lib.options import make_parser
from lib.results import Study
from peers.accelerator.attention import add_attention, attention
from peers.accelerator.kernels import add_check, add_tune, check, store, tune
from peers.accelerator.parts import FULL, SMOKE, Results, Run
from peers.accelerator.steps import add_steps, steps
from peers.accelerator.tables import add_tables, tables

from ligr_jax.ops.attention.tilings import FILE

# Both sides share the memory, and one device: the first one, except for steps on all devices.
ENV = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
ON_CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


class Part(NamedTuple):
    """A generator of results, what adds their table, and a share of the time."""

    measure: Callable[[Run], Results]
    add: Callable[[Study, list[dict[str, Any]]], None]
    share: float


PARTS = {
    "check": Part(check, add_check, 0.1),
    "tune": Part(tune, add_tune, 0.25),
    "attention": Part(attention, add_attention, 0.3),
    "step": Part(steps, add_steps, 0.25),
    "tables": Part(tables, add_tables, 0.1),
}


def main() -> None:
    args = arguments()
    sizes = SMOKE if args.smoke else FULL
    env = ENV | (ON_CPU if args.smoke else {})
    study = Study.of(__file__, __doc__)
    report: dict[str, Any] = {}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.parts:
        part = PARTS[name]
        print(f"\n== {name}", flush=True)
        until = time.monotonic() + part.share * 60 * args.minutes
        report[name] = []
        for result in part.measure(Run(sizes, args.torch, args.rounds, env, until)):
            report[name].append(result)
            args.out.write_text(json.dumps(report, indent=1) + "\n")
        if name == "tune":
            store(report[name], args.tilings)
        if report[name]:
            part.add(study, report[name])
    print(args.out)
    study.record(args.record)


def arguments() -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--torch", metavar="PYTHON", help="an interpreter with PyTorch")
    add("--minutes", type=float, default=9.5, help="for all parts [%(default)s]")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="[all]")
    add("--rounds", type=int, default=11, help="[%(default)s]")
    add("--tilings", type=Path, help="file for the fastest tiles [the one that `attend` reads]")
    add("--out", type=Path, default=Path("runs/accelerator.json"), help="[%(default)s]")
    add("--smoke", action="store_true", help="tiny sizes, on CPU")
    args = parser.parse_args()
    args.tilings = args.tilings or (args.out.with_name("tilings.json") if args.smoke else FILE)
    return args


if __name__ == "__main__":
    main()
