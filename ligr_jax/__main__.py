"""Entry point of `ligr` and of `python -m ligr_jax`."""

import sys

from ligr_jax.stop import block_signals, is_worker

# Signals are held before anything else is imported, so that an early one shows no traceback.
if not is_worker():
    block_signals()

from ligr_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
