"""Violations of the rules of a column."""

import numpy as np

Rules = list[tuple[np.ndarray, str]]  # rows (bool [N]) that violate a rule, and its message

OR_SKIP = ", or skip such rows with --on-bad-row skip"
SKIP_HINT = f"correct it{OR_SKIP}"
