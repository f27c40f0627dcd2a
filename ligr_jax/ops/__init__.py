"""Pure array functions without parameters: masks, attention, hashing, losses, metrics."""
