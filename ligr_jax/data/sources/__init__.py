"""Logs as they are found, read in bounded batches and checked against the canonical schema."""
