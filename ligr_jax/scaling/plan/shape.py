"""Rounding of the real numbers of a growth rule to a shape that can be trained."""

from collections.abc import Mapping

from ligr_jax.scaling.plan.rule import Interval


def usable(
    raw: Mapping[str, Interval], varied: frozenset[str], devices: int = 1
) -> dict[str, int | float]:
    """Round dimensions to valid sizes; dimensions not in `varied` are kept.

    T is rounded to a multiple of 64 (below 64: of 2), depth to an integer, width to heads times a
    multiple of 8 (narrow heads: of 4 or 1), table width to a multiple of 8 (below 16: of 4), the
    batch to a multiple of the devices, and learning rates to two digits.
    """
    value = {name: v for name, (v, _, _) in raw.items()}
    out: dict[str, int | float] = {}
    for name, v in value.items():
        if name == "optim.batch":
            out[name] = _multiple(v, devices)
        elif name not in varied:
            out[name] = int(v) if v == int(v) else v
        elif name == "data.seq_len":
            out[name] = max(4, _multiple(v, 64 if v >= 64 else 2))
        elif name == "model.table_width":
            out[name] = _multiple(v, 8 if v >= 16 else 4)
        elif name.endswith("_lr"):
            out[name] = float(f"{v:.1e}")
        else:
            out[name] = _multiple(v, 1)
    if "model.width" in out:
        heads = int(out.get("model.heads", 1))
        width = value["model.width"]
        if "model.width" in varied or out["model.width"] % heads:
            step = 8 if width >= 32 * heads else 4 if width >= 12 * heads else 1
            out["model.width"] = _multiple(width, step * heads)
    return out


def _multiple(value: float, step: int) -> int:
    """Round to the nearest positive multiple of `step`."""
    return max(1, round(value / step)) * step
