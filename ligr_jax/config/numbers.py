"""Numbers of a configuration: finite, and small enough for the arrays they shape."""

import math
import re

_LARGEST = 2**31 - 1  # of sizes, counts and seeds
_LARGEST_TIME = 2**63 - 1  # of times in ms


def parse_integer(text: str, name: str) -> int:
    """A whole number; 1e6 is one. Raises ValueError for any other text."""
    value = int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else _whole(float(text))
    largest = _LARGEST_TIME if name == "data.edges" else _LARGEST
    if abs(value) > largest:
        raise ValueError(f"the largest value is {largest:,}")
    return value


def parse_number(text: str) -> float:
    """A finite number. Raises ValueError for any other text."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("it has to be finite")
    return value


def _whole(value: float) -> int:
    if not math.isfinite(value) or value != int(value):
        raise ValueError("it has a fraction" if math.isfinite(value) else "it has to be finite")
    return int(value)
