"""Violations of the rules of a column."""

import numpy as np

Rules = list[tuple[np.ndarray, str]]  # rows (bool [N]) that violate a rule, and its message

SKIP_HINT = "correct it, or skip such rows with --on-bad-row skip"
