"""Embedding tables: layout on a mesh, lookup, sparse optimizers, planner, and export."""
