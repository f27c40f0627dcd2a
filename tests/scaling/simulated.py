"""Simulated sweeps with known laws: run directories like those that training writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np

Numbers = dict[str, Any]


def write_run(directory: Path, row: Numbers, curve: bool = True) -> None:
    """Write one finished run: its summary and, with `curve`, its metrics."""
    directory.mkdir(parents=True)
    (directory / "summary.json").write_text(json.dumps({"run": directory.name} | row))
    if curve:
        ne, flops = row["validation/ne"] or 1.0, row["flops_model"]
        logged = [
            {"step": s, "train/loss": ne + 1 / s, "flops_model": flops * s / 50}
            for s in range(1, 51)
        ]
        text = "".join(json.dumps(r) + "\n" for r in logged)
        (directory / "metrics.jsonl").write_text(text)


def summary(
    rng: np.random.Generator,
    *,
    length: int = 64,
    depth: int = 2,
    width: int = 64,
    tokens: float = 1e7,
    kind: str = "ligr",
    seed: int = 0,
    ne: float,
    noise: float = 2e-4,
) -> Numbers:
    """The summary of a run with 12 L D^2 dense parameters; flops_model includes attention."""
    dense = 12 * depth * width**2
    paper = dense * tokens
    model = 6 * paper + 18 * tokens * depth * width * length
    ne += noise * rng.normal()
    seconds = model / 2e10 * rng.lognormal(0, 0.05)
    return {
        "status": "finished",
        "tokens": tokens,
        "seconds": seconds,
        "estimate/seconds": model / 2.2e10,
        "devices": 1,
        "device": "cpu",
        "params_dense": dense,
        "params_tables": 16_000 * width,
        "flops_model": model,
        "flops_paper": paper,
        "flops_6nd": 6 * paper,
        "flops_xla": None,
        "config/model.kind": kind,
        "config/model.depth": depth,
        "config/model.width": width,
        "config/model.table_width": 16,
        "config/model.dtype": "float32",
        "config/data.seq_len": length,
        "config/data.fraction": 1.0,
        "config/optim.batch": 4096 // length,
        "config/train.steps": round(tokens / 4096),
        "config/train.seed": seed,
        "validation/ne": ne,
        "validation/click/auc": 0.95 - 0.3 * (ne - 0.4),
        "validation/long_dwell/auc": 0.97 - 0.3 * (ne - 0.4),
        "oracle/validation/ne": 0.55,
        "beats_oracle": False,
    }


RUNGS = [(16, 1, 16), (32, 1, 32), (48, 2, 32), (96, 2, 64), (128, 4, 64), (160, 4, 128)]
FLOOR, SCALE, ALPHA = 0.58, 0.25, 0.15  # law of the ladder
BEHIND = 0.01  # NE of hstu minus NE of ligr


def ladder_ne(compute: Any) -> Any:
    """The law of the simulated ladder, compute in flops_model."""
    return FLOOR + SCALE * (compute / 1e12) ** -ALPHA


def write_sweeps(root: Path) -> list[Path]:
    """Write sweeps with known results and return their directories.

    architecture: ligr and hstu on one ladder, two seeds. seq_len, depth: NE falls by 0.004 per
    doubling of T and by 0.010 per doubling of depth; T is free in flops_paper, not in flops_model.
    isoflop: minima in log size at 4,000 and 8,000 parameters for budgets 1e11 and 4e11.
    """
    rng = np.random.default_rng(0)
    for kind in ("ligr", "hstu"):
        for i, (length, depth, width) in enumerate(RUNGS):
            for seed in (0, 1):
                shape = {"length": length, "depth": depth, "width": width, "kind": kind}
                row = summary(rng, **shape, seed=seed, ne=0.0)
                row["validation/ne"] += ladder_ne(row["flops_model"]) + BEHIND * (kind == "hstu")
                write_run(root / "architecture" / f"{kind}{i}-{seed}", row)
    for length in (64, 128, 256, 512, 1024):
        row = summary(rng, length=length, width=16, ne=0.9 - 0.004 * np.log2(length / 64))
        write_run(root / "seq_len" / f"T{length}", row)
    for depth in (1, 2, 4, 8):
        row = summary(rng, depth=depth, width=16, ne=0.9 - 0.010 * np.log2(depth / 2))
        write_run(root / "depth" / f"depth{depth}", row)
    for budget, best in ((1e11, 4e3), (4e11, 8e3)):
        for width in (8, 12, 16, 24, 32):
            dense = 24 * width**2
            ne = 0.9 + 0.1 * np.log10(dense / best) ** 2 - 0.02 * np.log10(budget / 1e11)
            tokens = budget / (6 * dense + 18 * 2 * width * 64)
            row = summary(rng, width=width, tokens=tokens, ne=ne, noise=1e-5)
            write_run(root / "isoflop" / f"B{budget:.0e}w{width}", row)
    return [root / name for name in ("architecture", "seq_len", "depth", "isoflop")]
