import sys

from ligr_jax.cli import main

sys.exit(main())
