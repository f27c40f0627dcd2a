"""Small runs for tests of training."""

from pathlib import Path

from ligr_jax.config import Config
from ligr_jax.data.manifest import load_manifest
from ligr_jax.scaling.ladder import configure

SMALL = (
    "model.width=8",
    "model.depth=1",
    "model.table_width=4",
    "data.seq_len=32",
    "optim.batch=8",
    "train.steps=40",
    "train.log_every=5",
    "train.checkpoint_every=10",
    "track.wandb=off",
)


def small_config(prepared: Path, *assignments: str) -> Config:
    return configure(load_manifest(prepared), prepared, [*SMALL, *assignments])
