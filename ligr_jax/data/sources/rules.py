"""Rules that cells must keep, and what a message says where they do not."""

import numpy as np

Rules = list[tuple[np.ndarray, str]]  # rows that break a rule, and what the rule says

SKIP_HINT = "mend it, or leave such rows out with --on-bad-row skip"
