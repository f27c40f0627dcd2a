"""Violations of the rules of a column."""

import numpy as np
import polars as pl

Rules = list[tuple[np.ndarray, str]]  # rows (bool [N]) that violate a rule, and its message

OR_SKIP = ", or skip such rows with --on-bad-row skip"
SKIP_HINT = f"correct it{OR_SKIP}"


def format_value(value: object) -> str:
    """Return a value as text for a message, with at most 80 characters."""
    if isinstance(value, pl.Series):
        value = value.to_list()
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
