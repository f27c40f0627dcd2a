"""The shape to train next, from the runs there are: `make_plan`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ligr_jax.config import Config, flatten, override
from ligr_jax.data.schema import BadInput
from ligr_jax.parallel.peak import check_name, find_device, name_of
from ligr_jax.scaling.fit import Law, fit_line, fit_power
from ligr_jax.scaling.plan.configs import recorded_config, words_for
from ligr_jax.scaling.plan.place import Place, place
from ligr_jax.scaling.plan.rule import Interval, Rule, growth_rule
from ligr_jax.scaling.plan.serve import latency
from ligr_jax.scaling.plan.shape import usable
from ligr_jax.scaling.plan.training import (
    ASSUMED_SHARE,
    DataSize,
    Speed,
    Steps,
    data_size,
    default_config,
    speed,
    steps_for,
    with_steps,
)
from ligr_jax.scaling.plan.work import Pairs, measured_pairs
from ligr_jax.scaling.runs import column

REACH = 1.5  # decades beyond the largest run that are still answered
AXES = ("flops_model", "flops_6nd", "flops_paper")
_COUNTED = ("params_dense", "tokens")  # consequences of a shape, not choices


@dataclass(frozen=True)
class Asked:
    """The question. flops: the budget, on `axis`. device: None for the runs' own.

    serve_ms: longest a request of `candidates` may take. share: of a device's peak, None to
    measure or assume it. data: prepared data, None for the runs' own. far: beyond REACH as well.
    """

    flops: float
    metric: str = "validation/ne"
    lower_is_better: bool = True
    axis: str = "flops_model"
    device: str | None = None
    devices: int | None = None
    serve_ms: float | None = None
    candidates: int = 512
    share: float | None = None
    data: Path | None = None
    far: bool = False
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """What training and serving the shape take; seconds: of training, and of one request."""

    config: Config
    steps: Steps
    place: Place
    device: str
    devices: int
    speed: Speed
    seconds: float
    serve_seconds: float
    words: tuple[str, ...]
    data: DataSize
    other_axes: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """The answer. shape: usable sizes; raw: with intervals, before rounding. decades: beyond the
    largest run, negative within. trained: None where the runs do not record their configuration.
    """

    asked: Asked
    law: Law
    rule: Rule
    raw: dict[str, Interval]
    shape: dict[str, int | float]
    predicted: Interval
    decades: float
    trained: Trained | None
    warnings: tuple[str, ...]


def make_plan(table: pl.DataFrame, asked: Asked) -> Plan:
    """Plans the next run from finished ones.

    Raises:
        BadInput: no usable runs, one budget, a budget too small or too far, a shape that cannot be
            served in time; ValueError: an unknown device.
    """
    if asked.device:
        check_name(asked.device)
    table, notes = _sound(table, asked)
    rule = growth_rule(
        table, asked.metric, asked.axis, lower_is_better=asked.lower_is_better,
        resamples=asked.resamples, seed=asked.seed,
    )  # fmt: skip
    decades = _reach(rule, asked)
    law = _law(table, rule, asked)
    value, low, high = (float(v) for v in law.predict(asked.flops, run_noise=True))
    base = _Base.of(table, rule)
    trained = _trained(table, rule, law, base, asked) if base else None
    if not base:
        notes.append("the runs do not record their configuration: memory and time are not known")
    raw = rule.at(asked.flops)
    shape = usable(raw, _varied(rule), trained.devices if trained else 1)
    if trained:
        notes += _notes(trained, base)
    return Plan(
        asked, law, rule, raw, shape, (value, low, high), decades, trained,
        (*notes, *rule.warnings, *law.warnings),
    )  # fmt: skip


@dataclass(frozen=True)
class _Base:
    """What the runs recorded of themselves: rows and configurations, cheapest first."""

    rows: list[dict[str, Any]]
    configs: list[Config]
    best: Config  # of the largest run of the frontier: where the plan starts
    pairs: Pairs

    @classmethod
    def of(cls, table: pl.DataFrame, rule: Rule) -> "_Base | None":
        rows = table.sort(rule.axis).to_dicts()
        configs = [recorded_config(row) for row in rows]
        known = [(r, c) for r, c in zip(rows, configs) if c and r.get("flops_model")]
        known = [(r, c) for r, c in known if r.get("impressions") and r.get("targets")]
        names = [r["run"] for r, _ in known]
        if rule.frontier[-1] not in names:
            return None
        kept, found = [r for r, _ in known], [c for _, c in known]
        best = found[names.index(rule.frontier[-1])]
        return cls(kept, found, best, measured_pairs(kept, found))


def _sound(table: pl.DataFrame, asked: Asked) -> tuple[pl.DataFrame, list[str]]:
    """Runs without leaks and diverged ones, and what was left out."""
    if table.is_empty():
        raise BadInput("no finished runs: nothing to plan from")
    leaks = np.zeros(len(table), bool)
    if "beats_oracle" in table.columns:
        leaks = table["beats_oracle"].cast(pl.Boolean).fill_null(False).to_numpy()
    lost = ~np.isfinite(column(table, asked.metric)) | ~np.isfinite(column(table, asked.axis))
    notes = []
    for mask, why in ((leaks, "beats the oracle"), (lost & ~leaks, f"no {asked.metric}")):
        if mask.any():
            notes.append(f"left out, {why}: {', '.join(table['run'].to_numpy()[mask])}")
    table = table.filter(~(leaks | lost))
    if table.is_empty():
        raise BadInput(f"no usable runs: {'; '.join(notes)}")
    return table, notes


def _reach(rule: Rule, asked: Asked) -> float:
    smallest, largest = rule.compute
    if not math.isfinite(asked.flops) or asked.flops < smallest:
        raise BadInput(
            f"--flops {asked.flops:.3g} is below the smallest run's {smallest:.3g} on {asked.axis}; "
            f"ask for {smallest:.3g} or more"
        )
    decades = math.log10(asked.flops / largest)
    if decades > REACH and not asked.far:
        raise BadInput(
            f"--flops {asked.flops:.3g} is {decades:.1f} decades beyond the largest run's "
            f"{largest:.3g} on {asked.axis}, more than {REACH:g}: train a run of about "
            f"{largest * 10**REACH:.2g} first, or give --far to hear a guess"
        )
    return decades


def _law(table: pl.DataFrame, rule: Rule, asked: Asked) -> Law:
    """Of the frontier: other runs are no guide to what a well-chosen shape reaches."""
    best = table.filter(pl.col("run").is_in(rule.frontier))
    compute, metric = column(best, asked.axis), column(best, asked.metric)
    options: dict[str, Any] = {
        "runs": best["run"].to_list(), "resamples": asked.resamples, "seed": asked.seed,
    }  # fmt: skip
    if asked.lower_is_better:
        return fit_power(compute, metric, **options)
    return fit_line(compute, metric, **options)


def _varied(rule: Rule) -> frozenset[str]:
    return frozenset(n for n, growth in rule.dimensions.items() if growth.how != "fixed")


def _config_at(rule: Rule, compute: float, base: _Base, devices: int) -> Config:
    """The best run's configuration with the shape that the rule gives."""
    shape = usable(rule.at(compute), _varied(rule), devices)
    chosen = {n: v for n, v in shape.items() if n not in _COUNTED}
    return override(base.best, [f"{name}={value}" for name, value in chosen.items()])


def _trained(table: pl.DataFrame, rule: Rule, law: Law, base: _Base, asked: Asked) -> Trained:
    last = base.rows[-1]
    name = asked.device or name_of(str(last.get("device"))) or "cpu"
    devices = asked.devices or (int(last.get("devices") or 1) if not asked.device else 1)
    whole = find_device(name)
    # Simulated devices share one machine.
    device = (
        whole._replace(flops=whole.flops / devices, memory=whole.memory / devices)
        if name == "cpu"
        else whole
    )
    data = asked.data or Path(base.best.data.dir)
    size = data_size(base.rows, base.configs, data)
    config = _config_at(rule, asked.flops, base, devices)
    share = asked.share or ASSUMED_SHARE

    def serve(model_of: Config) -> float:
        t = model_of.data.seq_len
        return latency(model_of.model, t, asked.candidates, whole, share)

    if asked.serve_ms is not None and serve(config) * 1e3 > asked.serve_ms:
        raise BadInput(_too_slow(rule, law, base, asked, serve, devices))
    steps = steps_for(config, asked.axis, asked.flops, base.pairs, size)
    placed = place(with_steps(config, steps.steps), device, devices)
    pace = speed(base.rows, name, device, asked.share)
    planned = _assignments(placed.config, rule)
    return Trained(
        config=placed.config,
        steps=steps,
        place=placed,
        device=name,
        devices=devices,
        speed=pace,
        seconds=steps.axes["flops_model"] / (devices * pace.flops),
        serve_seconds=serve(config),
        words=("--data", str(data), *words_for(placed.config, default_config(data), planned)),
        data=size,
        other_axes=_other_axes(table, rule, steps, asked, devices),
    )


def _assignments(config: Config, rule: Rule) -> dict[str, Any]:
    """The plan's own choices, in the order a reader wants them."""
    flat = flatten(config)
    names = [n for n in rule.dimensions if n in flat]
    names += ["data.fraction", "train.epochs", "train.steps"]
    chosen = {n: flat[n] for n in dict.fromkeys(names)}
    for name, plain in (("model.remat", False), ("optim.accumulate", 1), ("mesh.fsdp", False)):
        if flat[name] != plain:
            chosen[name] = flat[name]
    if flat["mesh.model"] > 1:
        chosen |= {"mesh.data": flat["mesh.data"], "mesh.model": flat["mesh.model"]}
    return chosen


def _too_slow(rule: Rule, law: Law, base: _Base, asked: Asked, serve: Any, devices: int) -> str:
    """Which smaller shape can be served in time, and what it loses."""
    assert asked.serve_ms is not None
    wanted = _config_at(rule, asked.flops, base, devices)
    said = (
        f"the shape for {asked.flops:.3g} ({_short(wanted)}) takes {serve(wanted) * 1e3:.3g} ms for "
        f"a request of {asked.candidates} candidates, more than --serve-ms {asked.serve_ms:g}"
    )
    for compute in np.geomspace(asked.flops, rule.compute[0], 200)[1:]:
        smaller = _config_at(rule, float(compute), base, devices)
        if serve(smaller) * 1e3 <= asked.serve_ms:
            lost = abs(float(law.predict(compute)[0] - law.predict(asked.flops)[0]))
            return (
                f"{said}; {_short(smaller)}, the shape for {compute:.2g}, takes "
                f"{serve(smaller) * 1e3:.3g} ms and loses {lost:.4f} of {asked.metric}: ask for "
                f"--flops {compute:.2g}, fewer --candidates or a faster --device"
            )
    return f"{said}; so do the shapes of all smaller runs: lower --candidates"


def _short(config: Config) -> str:
    m = config.model
    return f"T {config.data.seq_len}, depth {m.depth}, width {m.width}"


def _other_axes(
    table: pl.DataFrame, rule: Rule, steps: Steps, asked: Asked, devices: int
) -> dict[str, dict[str, Any]]:
    """What the rules on other compute axes say for the same run, and where they leave the interval."""
    found: dict[str, dict[str, Any]] = {}
    raw = rule.at(asked.flops)
    mine = usable(raw, _varied(rule), devices)
    for axis in AXES:
        if axis == asked.axis or axis not in table.columns or table[axis].null_count():
            continue
        try:
            other = growth_rule(
                table, asked.metric, axis, lower_is_better=asked.lower_is_better, resamples=0
            )
        except BadInput as e:
            found[axis] = {"reason": str(e)}
            continue
        shape = usable(other.at(steps.axes[axis]), _varied(other), devices)
        chosen = {n: v for n, v in shape.items() if n not in _COUNTED}
        differs = [
            n for n, v in chosen.items() if v != mine[n] and not (raw[n][1] <= v <= raw[n][2])
        ]
        found[axis] = {"shape": chosen, "differs": differs}
    return found


def _notes(trained: Trained, base: "_Base | None") -> list[str]:
    assert base
    notes = []
    t, seen = trained.config.data.seq_len, base.pairs.lengths[-1]
    if t > seen:
        notes.append(
            f"attention pairs at T = {t} are those at T = {seen} times {t / seen:.3g}: the most "
            "there can be; `ligr sweep --dry-run` counts them in the data"
        )
    if not trained.place.fits:
        notes.append("no way was found to fit this into the devices' memory: add devices")
    most = max((c.train.epochs for c in base.configs if not c.train.steps), default=1.0)
    if trained.steps.epochs and trained.steps.epochs > max(most, 1.0) * 1.01:
        notes.append(
            f"reads its data {trained.steps.epochs:.1f} times, the runs {most:.3g} times: what "
            "repetition costs is not in the prediction; more data is better"
        )
    if "cpu" in trained.device:
        notes.append("a CPU's peak, memory and bandwidth are those of this machine")
    if trained.steps.steps < 50:
        notes.append(f"only {trained.steps.steps} steps: lower optim.batch")
    return notes
