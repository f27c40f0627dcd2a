"""The synthetic world: a log of a feed with known action probabilities."""
