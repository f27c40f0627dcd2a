"""From a log to sorted member histories in memory-mapped shards: two passes, bounded memory."""
