"""What training and serving a planned shape take."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ligr_jax.config import Config, flatten, override
from ligr_jax.data.schema import BadInput
from ligr_jax.parallel.peak import find_device, name_of
from ligr_jax.scaling.fit import Law
from ligr_jax.scaling.plan.command import train_words
from ligr_jax.scaling.plan.place import Place, place
from ligr_jax.scaling.plan.question import Asked
from ligr_jax.scaling.plan.recorded import Recorded
from ligr_jax.scaling.plan.rule import DERIVED, Rule
from ligr_jax.scaling.plan.serve import latency
from ligr_jax.scaling.plan.shape import usable
from ligr_jax.scaling.plan.steps import (
    ASSUMED_SHARE,
    DataSize,
    Speed,
    Steps,
    data_size,
    speed,
    steps_for,
    with_steps,
)
from ligr_jax.scaling.plan.work import Pairs, measured_pairs

_SHORT_STEP = 1e-3  # seconds of a device below which launching kernels counts


@dataclass(frozen=True)
class Trained:
    """A planned run. seconds: of training; request_seconds: of one request on one device.

    words: what follows `ligr train`.
    """

    config: Config
    steps: Steps
    data: DataSize
    place: Place
    device: str
    devices: int
    speed: Speed
    seconds: float
    request_seconds: float
    words: tuple[str, ...]
    warnings: tuple[str, ...]


def train_plan(record: Recorded, rule: Rule, law: Law, asked: Asked) -> Trained:
    """The planned run on its devices.

    Raises:
        BadInput: it cannot be served in time (the message names the shape that can), or the budget
            pays for too few steps.
    """
    last = record.rows[-1]
    own = name_of(str(last.get("device")))
    name = asked.device or own or "cpu"
    devices = asked.devices or (int(last.get("devices") or 1) if name == own else 1)
    whole = find_device(name)
    device = whole
    if name == "cpu":  # simulated devices share one machine
        device = whole._replace(flops=whole.flops / devices, memory=whole.memory / devices)

    def config_at(compute: float) -> Config:
        shape = usable(rule.at(compute), rule.varied, devices)
        chosen = {n: v for n, v in shape.items() if n not in DERIVED}
        return override(record.best, [f"{n}={v}" for n, v in chosen.items()])

    def request(config: Config) -> float:
        t, share = config.data.seq_len, asked.share or ASSUMED_SHARE
        return latency(config.model, t, asked.candidates, whole, share)

    config = config_at(asked.flops)
    if asked.serve_ms and request(config) * 1e3 > asked.serve_ms:
        raise BadInput(_too_slow(config_at, request, rule, law, asked))
    data = asked.data or Path(record.best.data.dir)
    pairs = measured_pairs(record.rows, record.configs)
    size = data_size(record.rows, record.configs, data)
    steps = steps_for(config, asked.axis, asked.flops, pairs, size)
    placed = place(with_steps(config, steps.steps), device, devices)
    pace = speed(record.rows, name, device, asked.share)
    seconds = steps.axes["flops_model"] / (devices * pace.flops)
    return Trained(
        config=placed.config,
        steps=steps,
        data=size,
        place=placed,
        device=name,
        devices=devices,
        speed=pace,
        seconds=seconds,
        request_seconds=request(config),
        words=tuple(train_words(placed.config, data, _planned(placed.config, rule))),
        warnings=tuple(_warnings(steps, placed, pace, seconds, pairs, record.configs)),
    )


def _planned(config: Config, rule: Rule) -> list[str]:
    """Names of the plan's own choices, in the order a reader wants them."""
    flat = flatten(config)
    names = [n for n in rule.dimensions if n not in DERIVED]
    names += ["data.fraction", "train.epochs", "train.steps"]
    switched = {"model.remat": False, "optim.accumulate": 1, "mesh.fsdp": False, "mesh.model": 1}
    return names + [n for n, plain in switched.items() if flat[n] != plain]


def _too_slow(
    config_at: Callable[[float], Config],
    request: Callable[[Config], float],
    rule: Rule,
    law: Law,
    asked: Asked,
) -> str:
    """Which smaller shape can be served in time, and what it loses."""

    def words(config: Config) -> str:
        m = config.model
        shape = f"T {config.data.seq_len}, depth {m.depth}, width {m.width}"
        return f"{shape}: {request(config) * 1e3:.3g} ms"

    said = (
        f"a request of {asked.candidates} candidates takes longer than --serve-ms "
        f"{asked.serve_ms:g} with the shape for {asked.flops:.3g} ({words(config_at(asked.flops))})"
    )
    for compute in np.geomspace(asked.flops, rule.compute[0], 200)[1:]:
        smaller = config_at(float(compute))
        if request(smaller) * 1e3 <= (asked.serve_ms or 0):
            lost = abs(float(law.predict(compute)[0] - law.predict(asked.flops)[0]))
            return (
                f"{said}; the shape for {compute:.3g} fits ({words(smaller)}) and loses {lost:.4f} "
                f"of {asked.metric}: ask for --flops {compute:.3g}, fewer --candidates, or a "
                "faster --device"
            )
    smallest = words(config_at(rule.compute[0]))
    return f"{said}, and even with the smallest run's ({smallest}); lower --candidates"


def _warnings(
    steps: Steps,
    placed: Place,
    pace: Speed,
    seconds: float,
    pairs: Pairs,
    configs: tuple[Config, ...],
) -> list[str]:
    said = []
    t, seen = placed.config.data.seq_len, pairs.lengths[-1]
    if t > seen:
        said.append(
            f"attention pairs at T = {t} are taken to be {t / seen:.3g} times those at T = {seen}: "
            "the most they can be; `ligr sweep --dry-run` counts them in the data"
        )
    if not placed.fits:
        said.append("nothing was found that fits this into the devices' memory: add devices")
    most = max((c.train.epochs for c in configs if not c.train.steps), default=1.0)
    if steps.epochs and steps.epochs > 1.01 * max(most, 1.0):
        said.append(
            f"the data is read {steps.epochs:.1f} times, in the runs {most:.3g} times: what "
            "repeating costs is not in the prediction, so bring more data"
        )
    if pace.assumed and seconds / steps.steps < _SHORT_STEP:
        said.append(
            f"a step would take {seconds / steps.steps * 1e6:.3g} us: launching it takes longer, "
            "so the time is a lower bound"
        )
    if steps.steps < 50:
        said.append(f"only {steps.steps} steps: a smaller optim.batch would train better")
    return said
