"""Steps and data for a compute budget, and the speed of a device."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ligr_jax.config import Config
from ligr_jax.cost.devices import Device, device_name
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.plan.recorded import RecordedRun
from ligr_jax.scaling.plan.work import AttentionPairs, per_impression

ASSUMED_SHARE = 0.3  # fraction of a device's peak, if no run was measured on it


@dataclass(frozen=True)
class DataSize:
    """Amount of training data.

    Attributes:
        targets: impressions of the train split; None if unknown.
        how: source of that number, in words.
        lengths: by T of the runs: impressions read per target, and fraction of a row that is not
            padding.
    """

    targets: float | None
    how: str
    lengths: Mapping[int, tuple[float, float]]

    def near(self, seq_len: int) -> tuple[float, float]:
        """Return the entry of `lengths` for the nearest T."""
        return self.lengths[min(self.lengths, key=lambda t: abs(t - seq_len))]


@dataclass(frozen=True)
class Steps:
    """Length of training: steps, data read, and the compute of all steps by axis."""

    steps: int
    impressions: float
    tokens: float
    epochs: float | None
    axes: dict[str, float]


@dataclass(frozen=True)
class Speed:
    """Training FLOP/s of one device, and the source of that number in words.

    `assumed` is false if it was measured in a run.
    """

    flops: float
    how: str
    assumed: bool = True


def data_size(runs: Sequence[RecordedRun], data: Path) -> DataSize:
    """Return the amount of training data, from the manifest or from runs that read all data."""
    lengths = {
        run.config.data.seq_len: (run.impressions / run.targets, run.packing) for run in runs
    }
    try:
        manifest = load_manifest(data)
        how = f"{data}/manifest.json"
        digest = runs[-1].config.data.digest
        if manifest.digest != digest:
            how += f", digest {manifest.digest}; the runs had {digest}: other data or release"
        return DataSize(
            targets=float(manifest.splits["train"].impressions), how=how, lengths=lengths
        )
    except BadInput:
        pass
    # Runs limited by epochs, not by steps, show the size of the data.
    sizes = [
        run.targets / (run.config.train.epochs * run.config.data.fraction)
        for run in runs
        if not run.config.train.steps
    ]
    if not sizes:
        return DataSize(
            targets=None,
            how=f"unknown size of the data: no manifest in {data}, and no run was set by epochs",
            lengths=lengths,
        )
    return DataSize(
        targets=max(sizes),
        how="data size from the runs' impressions per epoch and fraction of members",
        lengths=lengths,
    )


def steps_for(
    config: Config, axis: str, budget: float, pairs: AttentionPairs, data: DataSize
) -> Steps:
    """Return the number of steps whose compute on `axis` is `budget`.

    Args:
        config: configuration of the planned run.
        axis: compute axis.
        budget: compute on that axis.
        pairs: attention pairs per impression.
        data: amount of data.

    Raises:
        BadInput: the axis cannot be computed for a new shape, or the budget is less than ten steps.
    """
    cost = per_impression(config.model, config.data.seq_len, pairs)
    if axis not in cost:
        raise BadInput(f"--axis {axis} cannot be counted for a new shape; choose from {list(cost)}")
    read, packing = data.near(config.data.seq_len)
    per_step = config.optim.batch * (config.data.seq_len // 2) * packing
    steps = round(budget / cost[axis] / per_step)
    if steps < 10:
        raise BadInput(
            f"{budget:.3g} on {axis} is only {steps} steps of {config.optim.batch} rows of "
            f"{config.data.seq_len} tokens; give fewer --devices, or a larger --flops"
        )
    impressions = steps * per_step
    return Steps(
        steps=steps,
        impressions=impressions,
        tokens=2 * impressions,
        epochs=impressions / (read * data.targets) if data.targets else None,
        axes={name: value * impressions for name, value in cost.items()},
    )


def with_steps(config: Config, steps: int) -> Config:
    """Return the configuration that trains on all members for `steps` steps."""
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, fraction=1.0),
        train=dataclasses.replace(config.train, steps=steps, epochs=1.0),
    )


def speed(runs: Sequence[RecordedRun], name: str, device: Device, share: float | None) -> Speed:
    """Return the training speed on a device.

    Args:
        runs: runs in order of compute; the largest one measured on the device is used.
        name: name of the device.
        device: the device.
        share: fraction of the peak; None: measured, or `ASSUMED_SHARE` if no run was measured.
    """
    measured = [
        (run, run.seconds * run.devices)
        for run in runs
        if run.devices and run.seconds and run.seconds > 0 and device_name(run.device) == name
    ]
    if share is not None or not measured:
        fraction = ASSUMED_SHARE if share is None else share
        why = "from --mfu" if share is not None else f"assumed: no run was measured on {name}"
        return Speed(flops=fraction * device.flops, how=f"{fraction:.0%} of the peak, {why}")
    run, device_seconds = measured[-1]
    how = f"speed of run {run.name} on {run.devices} x {run.device}"
    return Speed(flops=run.flops_model / device_seconds, how=how, assumed=False)
