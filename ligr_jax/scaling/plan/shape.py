"""From a rule's real numbers to a shape that can be trained."""

from collections.abc import Mapping

from ligr_jax.scaling.plan.rule import Interval


def usable(
    raw: Mapping[str, Interval], varied: frozenset[str], devices: int = 1
) -> dict[str, int | float]:
    """Dimensions rounded to sizes that work; those not in `varied` stay as they are.

    T to a multiple of 64 (below 64: of 2); depth to a whole number; width to heads of a multiple of
    8 (narrow ones: of 4, of 1); table width to a multiple of 8 (below 16: of 4); the batch to what
    devices can share; rates to two digits.
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
        heads, width = int(out.get("model.heads", 1)), value["model.width"]
        if "model.width" in varied or out["model.width"] % heads:
            each = 8 if width >= 32 * heads else 4 if width >= 12 * heads else 1
            out["model.width"] = _multiple(width, each * heads)
    return out


def _multiple(value: float, of: int) -> int:
    return max(1, round(value / of)) * of
