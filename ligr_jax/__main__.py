"""The entry of `ligr` and of `python -m ligr_jax`."""

import sys

from ligr_jax.stop import block_signals, is_worker

# Before anything else is imported, so that no signal of the first moment ends in a traceback.
if not is_worker():
    block_signals()

from ligr_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
