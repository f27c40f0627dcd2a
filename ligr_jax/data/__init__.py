"""From an impression log to batches. NumPy, polars, pyarrow and grain; never JAX."""
