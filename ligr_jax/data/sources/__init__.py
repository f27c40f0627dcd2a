"""Adapters for logs of several formats, read in batches and checked against the schema."""
