"""The sub-commands of `ligr`, one file each: `add_arguments(parser)` and `run(args)`."""
