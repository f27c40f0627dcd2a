"""Embedding tables and their lookup."""
