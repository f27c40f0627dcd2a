"""How long to train: steps and data for a budget, and the speed of a device."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ligr_jax.config import Config
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.schema import BadInput
from ligr_jax.parallel.peak import Device, name_of
from ligr_jax.scaling.plan.work import Pairs, per_impression

ASSUMED_SHARE = 0.3  # of a device's peak, where no run was measured on it


@dataclass(frozen=True)
class DataSize:
    """targets: impressions of the train split, None where unknown. how: where that comes from.

    lengths: by T of the runs, (impressions read per target, share of a row that is no padding).
    """

    targets: float | None
    how: str
    lengths: Mapping[int, tuple[float, float]]

    def near(self, seq_len: int) -> tuple[float, float]:
        """What `lengths` has for the nearest T."""
        return self.lengths[min(self.lengths, key=lambda t: abs(t - seq_len))]


@dataclass(frozen=True)
class Steps:
    """How long to train: steps, and what they read; axes: the compute axes of all of it."""

    steps: int
    impressions: float
    tokens: float
    epochs: float | None
    axes: dict[str, float]


@dataclass(frozen=True)
class Speed:
    """flops: FLOP/s of one device that training reaches. how: where that comes from, in words."""

    flops: float
    how: str
    assumed: bool = True


def data_size(rows: Sequence[Mapping[str, Any]], configs: Sequence[Config], data: Path) -> DataSize:
    """How much there is to train on: by the manifest, else by runs that read it all."""
    lengths = {
        c.data.seq_len: (r["impressions"] / r["targets"], r.get("packing") or 1.0)
        for r, c in zip(rows, configs)
    }
    try:
        manifest = load_manifest(data)
        how = f"{data}/manifest.json"
        theirs = configs[-1].data.digest
        if manifest.digest != theirs:
            how += f", digest {manifest.digest}, the runs' {theirs}: other data, or another release"
        return DataSize(float(manifest.splits["train"].impressions), how, lengths)
    except BadInput:
        pass
    whole = [
        r["targets"] / (c.train.epochs * c.data.fraction)
        for r, c in zip(rows, configs)
        if not c.train.steps
    ]
    if not whole:
        return DataSize(
            None, f"unknown: no manifest in {data}, and no run read whole epochs", lengths
        )
    return DataSize(max(whole), "impressions trained per epoch and share of members", lengths)


def steps_for(config: Config, axis: str, budget: float, pairs: Pairs, data: DataSize) -> Steps:
    """Steps whose `axis` comes to `budget`.

    Raises:
        BadInput: the budget does not pay for ten steps of that shape.
    """
    each = per_impression(config.model, config.data.seq_len, pairs)
    if axis not in each:
        raise BadInput(f"--axis {axis} cannot be counted for a new shape; choose from {list(each)}")
    read, packing = data.near(config.data.seq_len)
    of_step = config.optim.batch * (config.data.seq_len // 2) * packing
    steps = round(budget / each[axis] / of_step)
    if steps < 10:
        raise BadInput(
            f"{budget:.3g} on {axis} pays for {steps} steps of {config.optim.batch} rows of "
            f"{config.data.seq_len} tokens; give fewer --devices, or a larger --flops"
        )
    impressions = steps * of_step
    return Steps(
        steps=steps,
        impressions=impressions,
        tokens=2 * impressions,
        epochs=impressions / (read * data.targets) if data.targets else None,
        axes={name: value * impressions for name, value in each.items()},
    )


def with_steps(config: Config, steps: int) -> Config:
    """All members, for so many steps."""
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, fraction=1.0),
        train=dataclasses.replace(config.train, steps=steps, epochs=1.0),
    )


def speed(
    rows: Sequence[Mapping[str, Any]], name: str, device: Device, share: float | None
) -> Speed:
    """Of the largest run measured on a device of that name, else `share` of its peak.

    rows: cheapest first.
    """
    told = ("flops_model", "seconds", "devices", "device")
    on_it = [
        r
        for r in rows
        if all(r.get(k) for k in told) and r["seconds"] > 0 and name_of(r["device"]) == name
    ]
    if share is not None or not on_it:
        used = ASSUMED_SHARE if share is None else share
        why = "as told" if share is not None else f"assumed: no run was measured on {name}"
        return Speed(used * device.flops, f"{used:.0%} of the peak, {why}")
    run = on_it[-1]
    rate = run["flops_model"] / (run["seconds"] * run["devices"])
    return Speed(rate, f"as run {run['run']} reached on {run['devices']} x {run['device']}", False)
