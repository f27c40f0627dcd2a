"""Parsing of the numbers of a configuration, with their limits."""

import math
import re

_LARGEST = 2**31 - 1  # limit of sizes, counts and seeds
_LARGEST_TIME = 2**63 - 1  # limit of times in milliseconds


def parse_integer(text: str, name: str) -> int:
    """Parse a whole number, e.g. `1000000` or `1e6`.

    Args:
        text: the text.
        name: dotted name of the field.

    Raises:
        ValueError: the text is not a whole number, or the number is too large.
    """
    value = int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else _whole(float(text))
    largest = _LARGEST_TIME if name == "data.edges" else _LARGEST
    if abs(value) > largest:
        raise ValueError(f"the largest value is {largest:,}")
    return value


def parse_number(text: str) -> float:
    """Parse a finite number.

    Raises:
        ValueError: the text is not a finite number.
    """
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("it must be finite")
    return value


def _whole(value: float) -> int:
    if not math.isfinite(value) or value != int(value):
        raise ValueError("it has a fraction" if math.isfinite(value) else "it must be finite")
    return int(value)
