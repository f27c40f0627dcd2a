"""JSON as RFC 8259 has it: NaN and infinity, which Python writes as words, become null."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def nan_to_null(value: Any) -> Any:
    """Convert to JSON values.

    Args:
        value: mappings, lists, tuples, numbers of Python and NumPy, strings, None, nested at will.

    Returns:
        The value with tuples as lists, and None in place of NaN and infinity.
    """
    if isinstance(value, Mapping):
        return {k: nan_to_null(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_null(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_json(value: Any) -> None:
    """Print a value on stdout as JSON; see `nan_to_null`."""
    print(json.dumps(nan_to_null(value), indent=1, allow_nan=False))
