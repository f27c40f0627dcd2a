"""Flax modules: linear maps, token features, gated blocks, LiGR."""
