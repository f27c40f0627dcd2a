"""The sub-commands of `ligr`, one module each, with `add_arguments(parser)` and `run(args)`."""
