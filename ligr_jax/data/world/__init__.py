"""The synthetic world: a feed whose true action probabilities are known."""
