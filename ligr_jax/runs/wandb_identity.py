"""How W&B shows a run among hundreds: its name, group, tags, and what it can be filtered by."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from ligr_jax.config import Config, digest, flatten
from ligr_jax.digests import DamagedFile
from ligr_jax.runs.columns import ABOUT, config_column, is_shape
from ligr_jax.runs.files import SWEEP
from ligr_jax.runs.listed import read_listed
from ligr_jax.runs.provenance import provenance
from ligr_jax.runs.wandb_env import WandbOptions, environment_variable

_DIGITS = 4  # of a digest in a name


@dataclass(frozen=True)
class WandbIdentity:
    """How W&B shows a run.

    Attributes:
        name: Sweep, shape, seed and digest, e.g. "ladder T64 L2 D24 s0 (cb77)".
        group: Sweep and shape, equal for runs that differ only in their seed.
        job_type: Type of the job.
        tags: Sweeps, preset and kind of model; and those of the environment.
        config: Configuration of the run, nested because W&B's panels address nested values only,
            and facts under `about`: sweep, preset, commit, versions, device, number of devices and
            of processes.
    """

    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    config: dict[str, Any]


def identify(directory: Path, config: Config, options: WandbOptions) -> WandbIdentity:
    """Return how W&B shows a run; names of the configuration and the environment have precedence.

    Args:
        directory: Directory of the run; that of its sweep has sweep.json.
        config: Configuration of the run.
        options: Names of the W&B run.
    """
    run = directory.resolve()
    sweeps, preset = _sweeps_and_preset(run)
    shape = f"T{config.data.seq_len} L{config.model.depth} D{config.model.width}"
    shape = " ".join([*sweeps[:1], shape])
    prefix = [] if sweeps or run.name == digest(config) else [run.name]
    name = [*prefix, shape, f"s{config.train.seed}", f"({digest(config)[:_DIGITS]})"]
    tags = [*environment_variable("WANDB_TAGS").split(","), *sweeps, preset, config.model.kind]
    facts = {
        "sweep": sweeps[0] if sweeps else "",
        "preset": preset,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        **provenance(),
    }
    return WandbIdentity(
        name=options.name or " ".join(name),
        group=options.group or f"{shape} ({_shape_digest(config)[:_DIGITS]})",
        job_type=environment_variable("WANDB_JOB_TYPE") or "train",
        tags=tuple(dict.fromkeys(t.strip()[:64] for t in tags if t.strip())),
        config=_nested(flatten(config)) | {ABOUT: facts},
    )


def _sweeps_and_preset(run: Path) -> tuple[tuple[str, ...], str]:
    """Return the sweeps that contain a run, and its preset; nothing if no sweep lists it."""
    try:
        points = read_listed(run.parent / SWEEP)["points"]
    except (DamagedFile, OSError):
        return (), ""
    point: dict[str, Any] = next((p for p in points if p.get("run") == run.name), {})
    presets = (a.partition("=")[2] for a in point.get("assignments", ()) if a.startswith("preset="))
    return tuple(map(str, point.get("sweeps", ()))), next(presets, "")


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"model": {"depth": 2}} for {"model.depth": 2}."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, leaf = name.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[leaf] = value
    return nested


def _shape_digest(config: Config) -> str:
    shape = {k: v for k, v in flatten(config).items() if is_shape(config_column(k))}
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()
