"""Preparation of a log: sorted member histories in memory-mapped shards."""
