"""Simulated sweeps with a known law and known best shapes."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from ligr_jax.config import Config, DataConfig, OptimConfig, flatten, override
from ligr_jax.cost.flops import compute_axes
from ligr_jax.cost.memory import dense_parameters
from ligr_jax.nn.work import Work
from tests.batches import model_config

HISTORY = 0.8  # attention pairs per impression, as a fraction of T
SETWISE = 6.0  # pairs per impression within a session
TARGETS = 4e5  # targets of the simulated train split


def best_shape(compute: float) -> dict[str, float]:
    """The shape rule that plans must recover."""
    c = compute / 1e12
    return {
        "data.seq_len": 128 * c**0.3,
        "model.depth": 2 * c**0.2,
        "model.width": 64 * c**0.25,
        "model.table_width": 16 * c**0.1,
    }


def law(compute: float) -> float:
    return 0.7 + 0.1 * (compute / 1e12) ** -0.2


def config_of(sizes: dict[str, float], **changes: str) -> Config:
    """The configuration of the nearest sizes that can be trained."""
    rounded = {
        "data.seq_len": max(4, 2 * round(sizes["data.seq_len"] / 2)),
        "model.depth": max(1, round(sizes["model.depth"])),
        "model.width": 2 * max(1, round(sizes["model.width"] / 2)),
        "model.table_width": max(1, round(sizes["model.table_width"])),
    }
    base = Config(
        model=dataclasses.replace(model_config(), set_depth=1, position="relative_session"),
        data=DataConfig(dir="/nowhere", digest="d1"),
        optim=OptimConfig(batch=16),
    )
    return override(base, [f"{k}={v}" for k, v in (rounded | changes).items()])


def work_of(config: Config, impressions: float) -> Work:
    pairs = HISTORY * config.data.seq_len
    return Work(impressions, impressions * pairs, impressions * SETWISE)


def impressions_for(config: Config, compute: float) -> float:
    dense = dense_parameters(config.model)
    return compute / compute_axes(config.model, dense, work_of(config, 1.0))["flops_model"]


def write_run(out: Path, name: str, config: Config, compute: float, ne: float) -> None:
    """Write the directory of one finished run."""
    impressions = impressions_for(config, compute)
    dense = dense_parameters(config.model)
    summary = {
        "impressions": impressions,
        "tokens": 2 * impressions,
        "targets": impressions / 2,
        "packing": 0.98,
        "seconds": compute / 1e11,
        "devices": 2,
        "device": "NVIDIA H200",
        "params_dense": dense,
        **compute_axes(config.model, dense, work_of(config, impressions)),
        **{f"config/{k}": v for k, v in flatten(config).items()},
        "validation/ne": ne,
        "validation/auc": 1.2 - ne,
    }
    (out / name).mkdir(parents=True)
    (out / name / "summary.json").write_text(json.dumps(summary))


def ladder(out: Path, budgets: int = 9, noise: float = 3e-4) -> Path:
    """Write runs with the best shape of every budget, from 1e11 to 1e15 FLOPs."""
    rng = np.random.default_rng(0)
    for i, compute in enumerate(np.geomspace(1e11, 1e15, budgets)):
        epochs = impressions_for(config_of(best_shape(compute)), compute) / 2 / TARGETS
        config = config_of(best_shape(compute), **{"train.epochs": str(epochs)})
        write_run(out, f"r{i}", config, compute, law(compute) * np.exp(noise * rng.normal()))
    return out


def isoflop(out: Path, noise: float = 1e-4) -> Path:
    """Write five budgets, each with shapes from a quarter to four times the best sizes."""
    rng = np.random.default_rng(1)
    for i, compute in enumerate(np.geomspace(1e12, 1e15, 5)):
        for j, scale in enumerate(2.0 ** np.linspace(-2, 2, 7)):
            config = config_of({k: v * scale for k, v in best_shape(compute).items()})
            worse = 0.01 * np.log10(scale) ** 2
            ne = law(compute) * np.exp(noise * rng.normal()) + worse
            write_run(out, f"r{i}{j}", config, compute, ne)
    return out
