"""State, step, loop, checkpoints, evaluation, tracking."""
