"""A plan as text, as a command, and as JSON."""

import math
import shlex
from typing import Any

from ligr_jax.config import flatten
from ligr_jax.data.schema import BadInput
from ligr_jax.scaling.fit import Law
from ligr_jax.scaling.plan.planner import Plan
from ligr_jax.scaling.plan.rule import DimensionRule, Interval
from ligr_jax.scaling.plan.training import TrainingPlan

_NAMES = {
    "data.seq_len": "sequence length",
    "model.depth": "depth",
    "model.set_depth": "set-wise depth",
    "model.width": "width",
    "model.heads": "heads",
    "model.table_width": "table width",
    "optim.batch": "batch",
    "optim.dense_lr": "dense rate",
    "optim.table_lr": "table rate",
    "params_dense": "dense parameters",
    "tokens": "tokens",
}


def text(plan: Plan) -> str:
    """Return the plan as text: a table, the runs it is based on, warnings, and the command."""
    request = plan.request
    law = plan.law
    rows = [
        (_NAMES[n], _number(plan.shape[n]), _how(g, plan.raw[n]))
        for n, g in plan.rule.dimensions.items()
        if n in plan.shape
    ]
    if plan.trained:
        rows += _training_rows(plan, plan.trained)
    rows.append((request.metric, f"{plan.predicted[0]:.4f}", _span(plan.predicted, law)))
    width = [max(len(row[i]) for row in rows) for i in (0, 1)]
    reach = "as the largest run"
    if abs(plan.decades) >= 0.05:
        reach = (
            f"{plan.decades:.1f} decades beyond the largest run"
            if plan.decades > 0
            else f"within the runs, {-plan.decades:.1f} decades below the largest"
        )
    lines = [
        f"{request.flops:.3g} on {request.axis}, {reach}",
        *("  " + "  ".join((a.ljust(width[0]), b.ljust(width[1]), c)).rstrip() for a, b, c in rows),
        f"frontier ({len(plan.rule.frontier)} runs): {', '.join(plan.rule.frontier)}",
    ]
    if plan.trained:
        lines += _axes_lines(plan.other_axes)
    lines += [f"warning: {w}" for w in plan.warnings]
    return "\n".join([*lines, *(["", command(plan)] if plan.trained else [])])


def command(plan: Plan) -> str:
    """Return `ligr train ...` for the planned run.

    Raises:
        ValueError: the runs do not record their configuration.
    """
    if plan.trained is None:
        raise BadInput("these runs do not record their configuration, so no command can be made")
    return shlex.join(["ligr", "train", "--runs", str(plan.request.out), *plan.trained.words])


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return the plan, with the sources of its numbers, as plain JSON values."""
    request = plan.request
    values: dict[str, Any] = {
        "flops": request.flops,
        "axis": request.axis,
        "metric": request.metric,
        "decades_beyond": plan.decades,
        "shape": plan.shape,
        "dimensions": {
            n: {
                "rule": g.how,
                "exponent": g.exponent,
                "runs": list(g.runs),
                **_interval(plan.raw[n]),
            }
            for n, g in plan.rule.dimensions.items()
        },
        "predicted": _interval(plan.predicted),
        "frontier": list(plan.rule.frontier),
        "law": plan.law.to_json(),
        "warnings": list(plan.warnings),
    }
    if plan.trained is None:
        return values
    t = plan.trained
    return values | {
        "steps": t.steps.steps,
        "impressions": t.steps.impressions,
        "tokens": t.steps.tokens,
        "epochs": t.steps.epochs,
        "axes": t.steps.axes,
        "device": t.device,
        "devices": t.devices,
        "memory": {"bytes": t.memory.bytes, "total": t.memory.total, "fits": t.memory.fits},
        "seconds": t.seconds,
        "speed": {"flops_per_s": t.speed.flops, "how": t.speed.how},
        "serve": {"candidates": request.candidates, "seconds": t.request_seconds},
        "other_axes": plan.other_axes,
        "data": {"impressions": t.data.targets, "how": t.data.how},
        "config": flatten(t.config),
        "command": command(plan),
    }


def _training_rows(plan: Plan, t: TrainingPlan) -> list[tuple[str, str, str]]:
    epochs = f"{t.steps.epochs:.2f} epochs ({t.data.how})" if t.steps.epochs else t.data.how
    used = [f"{size / 2**30:.3g} {what}" for what, size in t.memory.bytes.items()]
    return [
        (
            "steps",
            f"{t.steps.steps:,}",
            f"{t.steps.axes[plan.request.axis]:.4g} on {plan.request.axis}",
        ),
        ("tokens", f"{t.steps.tokens:.3g}", epochs),
        ("memory", f"{t.memory.total / 2**30:.3g} GiB", "per device: " + ", ".join(used)),
        ("time", _clock(t.seconds), f"on {t.devices} x {t.device}: {t.speed.how}"),
        (
            "serving request",
            f"{t.request_seconds * 1e3:.3g} ms",
            f"history encoded once, {plan.request.candidates} candidates, on one {t.device}"
            + (" (speed measured now)" if t.device == "cpu" else ""),
        ),
    ]


def _axes_lines(others: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for axis, result in others.items():
        if "reason" in result:
            lines.append(f"no plan on {axis}: {result['reason']}")
        elif result["differs"]:
            sizes = ", ".join(
                f"{_NAMES[n]} {_number(result['shape'][n])}" for n in result["differs"]
            )
            lines.append(f"on {axis} the plan differs: {sizes}")
        else:
            lines.append(f"on {axis} the plan is within these intervals")
    return lines


def _how(growth: DimensionRule, span: Interval) -> str:
    if growth.how == "fixed":
        return "equal in all runs"
    interval = f" ({_number(span[1])} to {_number(span[2])})" if math.isfinite(span[1]) else ""
    source = f"{growth.how} of {len(growth.runs)} runs"
    return f"{source}: C^{growth.exponent:.2f} gives {_number(span[0])}{interval}"


def _span(span: Interval, law: Law) -> str:
    if not math.isfinite(span[1]):
        return f"{law.form} law; these runs give no interval"
    return (
        f"{law.confidence:.0%} prediction interval of a run: {span[1]:.4f} to {span[2]:.4f} "
        f"({law.form} law of the frontier)"
    )


def _interval(span: Interval) -> dict[str, float | None]:
    ends = (v if math.isfinite(v) else None for v in span)
    return dict(zip(("value", "low", "high"), ends))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _clock(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
