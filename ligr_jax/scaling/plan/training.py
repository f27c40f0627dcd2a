"""Steps, memory, time and command of a planned run, and its serving latency."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ligr_jax.config import Config, flatten, override
from ligr_jax.cost.devices import device_name, find_device
from ligr_jax.cost.latency import SERVING_SHARE, request_latency
from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import Law
from ligr_jax.scaling.plan.command import train_words
from ligr_jax.scaling.plan.device_memory import DeviceMemory, fit_in_memory
from ligr_jax.scaling.plan.recorded import RecordedRun, RecordedRuns
from ligr_jax.scaling.plan.request import PlanRequest
from ligr_jax.scaling.plan.rule import DERIVED, GrowthRule
from ligr_jax.scaling.plan.shape import usable
from ligr_jax.scaling.plan.steps import (
    DataSize,
    Speed,
    Steps,
    data_size,
    speed,
    steps_for,
    with_steps,
)
from ligr_jax.scaling.plan.work import AttentionPairs, measured_pairs
from ligr_jax.store.mirror import local_path

_SHORT_STEP = 1e-3  # seconds of a step below which kernel launches dominate


@dataclass(frozen=True)
class TrainingPlan:
    """Training of a planned run.

    Attributes:
        config: configuration.
        steps: length of training.
        data: amount of data.
        memory: memory use per device.
        device: name of the device.
        devices: number of devices.
        speed: speed of one device.
        seconds: training time.
        request_seconds: latency of one serving request on one device.
        words: arguments of `ligr train`.
        warnings: what limits the plan.
    """

    config: Config
    steps: Steps
    data: DataSize
    memory: DeviceMemory
    device: str
    devices: int
    speed: Speed
    seconds: float
    request_seconds: float
    words: tuple[str, ...]
    warnings: tuple[str, ...]


def train_plan(
    record: RecordedRuns, rule: GrowthRule, law: Law, request: PlanRequest
) -> TrainingPlan:
    """Compute the training and serving cost of the planned run.

    Args:
        record: runs with configurations.
        rule: growth of the dimensions.
        law: law of the metric in compute.
        request: budget and constraints.

    Raises:
        BadInput: the shape cannot be served in time (the message names one that can), or the budget
            is too small for ten steps.
    """
    # The device of the largest run, unless the request names another one.
    last = record.runs[-1]
    device_of_runs = device_name(last.device)
    name = request.device or device_of_runs or "cpu"
    devices = request.devices or (int(last.devices or 1) if name == device_of_runs else 1)
    machine = find_device(name)
    device = machine
    if name == "cpu":  # simulated CPU devices share the machine
        device = machine._replace(flops=machine.flops / devices, memory=machine.memory / devices)

    def config_at(compute: float) -> Config:
        shape = usable(rule.at(compute), rule.varied, devices)
        chosen = {n: v for n, v in shape.items() if n not in DERIVED}
        return override(record.best, [f"{n}={v}" for n, v in chosen.items()])

    def request_seconds(config: Config) -> float:
        share = request.share or SERVING_SHARE
        return request_latency(
            config.model, config.data.seq_len, request.candidates, machine, share
        )

    config = config_at(request.flops)
    if request.serve_ms and request_seconds(config) * 1e3 > request.serve_ms:
        raise BadInput(_too_slow(config_at, request_seconds, rule, law, request))

    # Steps come before memory, because options that save memory do not change the FLOPs counted.
    data = request.data or local_path(record.best.data.dir)
    pairs = measured_pairs(record.runs)
    size = data_size(record.runs, data)
    steps = steps_for(config, request.axis, request.flops, pairs, size)
    memory = fit_in_memory(with_steps(config, steps.steps), device, devices)
    training_speed = speed(record.runs, name, device, request.share)
    seconds = steps.axes["flops_model"] / (devices * training_speed.flops)
    return TrainingPlan(
        config=memory.config,
        steps=steps,
        data=size,
        memory=memory,
        device=name,
        devices=devices,
        speed=training_speed,
        seconds=seconds,
        request_seconds=request_seconds(config),
        words=tuple(train_words(memory.config, data, _planned(memory.config, rule))),
        warnings=(
            *_moved(data),
            *_warnings(steps, memory, training_speed, seconds, pairs, record.runs),
        ),
    )


def _planned(config: Config, rule: GrowthRule) -> list[str]:
    """Return the names of the settings that the plan chooses, in reading order."""
    flat = flatten(config)
    names = [n for n in rule.dimensions if n not in DERIVED]
    names += ["data.fraction", "train.epochs", "train.steps"]
    switched = {"model.remat": False, "optim.accumulate": 1, "mesh.fsdp": False, "mesh.model": 1}
    return names + [n for n, plain in switched.items() if flat[n] != plain]


def _too_slow(
    config_at: Callable[[float], Config],
    request_seconds: Callable[[Config], float],
    rule: GrowthRule,
    law: Law,
    request: PlanRequest,
) -> str:
    """Return the message that names the largest shape that can be served in time, and its loss."""

    def words(config: Config) -> str:
        m = config.model
        shape = f"T {config.data.seq_len}, depth {m.depth}, width {m.width}"
        return f"{shape}: {request_seconds(config) * 1e3:.3g} ms"

    message = (
        f"a request of {request.candidates} candidates takes longer than --serve-ms "
        f"{request.serve_ms:g} with the shape for {request.flops:.3g} "
        f"({words(config_at(request.flops))})"
    )
    for compute in np.geomspace(request.flops, rule.compute[0], 200)[1:]:
        smaller = config_at(float(compute))
        if request_seconds(smaller) * 1e3 <= (request.serve_ms or 0):
            lost = abs(float(law.predict(compute)[0] - law.predict(request.flops)[0]))
            return (
                f"{message}; the shape for {compute:.3g} is fast enough ({words(smaller)}) and "
                f"loses {lost:.4f} of {request.metric}: give --flops {compute:.3g}, fewer "
                "--candidates, or a faster --device"
            )
    smallest = words(config_at(rule.compute[0]))
    return f"{message}, and even with that of the smallest run ({smallest}); lower --candidates"


def _moved(data: Path) -> list[str]:
    """Return a note if the data of the runs are not where the runs had them."""
    if (data / "manifest.json").is_file():
        return []
    return [
        f"{data} holds no manifest.json now: if the data have moved, name their directory with "
        "--data"
    ]


def _warnings(
    steps: Steps,
    memory: DeviceMemory,
    training_speed: Speed,
    seconds: float,
    pairs: AttentionPairs,
    runs: Sequence[RecordedRun],
) -> list[str]:
    """Return warnings about extrapolated pairs, memory, repeated data, short steps, few steps."""
    warnings = []
    t = memory.config.data.seq_len
    longest = pairs.lengths[-1]
    if t > longest:
        warnings.append(
            f"attention pairs at T = {t} are assumed to be {t / longest:.3g} times those at "
            f"T = {longest}, which is an upper bound; `ligr sweep --dry-run` counts them exactly"
        )
    if not memory.fits:
        warnings.append("the run does not fit into the memory of the devices: add devices")
    trained = [run.config.train for run in runs]
    most = max((train.epochs for train in trained if not train.steps), default=1.0)
    if steps.epochs and steps.epochs > 1.01 * max(most, 1.0):
        warnings.append(
            f"the data is read {steps.epochs:.1f} times, but at most {most:.3g} times in the runs: "
            "the prediction does not include the loss from repetition; use more data"
        )
    if training_speed.assumed and seconds / steps.steps < _SHORT_STEP:
        warnings.append(
            f"a step would take {seconds / steps.steps * 1e6:.3g} us, less than the launch of its "
            "kernels, so the time is a lower bound"
        )
    if steps.steps < 50:
        warnings.append(f"only {steps.steps} steps: a smaller optim.batch would train better")
    return warnings
