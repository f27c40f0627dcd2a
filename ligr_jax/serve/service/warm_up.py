"""Compilation of an artifact's programs before requests arrive."""

from collections.abc import Sequence

from ligr_jax.data.padding import padding_batch
from ligr_jax.serve.artifact import Artifact


def compile_programs(artifact: Artifact, candidates: Sequence[int], most_rows: int) -> None:
    """Run the programs of `encode` and `rank` once, on padding, for all sizes of histories.

    Args:
        artifact: the artifact.
        candidates: numbers of candidates; none: nothing is compiled.
        most_rows: largest number of requests of a batch.
    """
    model = artifact.model
    sizes = {
        min(artifact.scoring.bucket(n), artifact.capacity)
        for n in _powers_of_two(artifact.capacity)
    }
    for rows in _powers_of_two(most_rows) if candidates else ():
        for size in sorted(sizes):
            cache = artifact.encode(padding_batch(model, rows, size))
            for count in candidates:
                artifact.rank(cache, padding_batch(model, rows, count))


def _powers_of_two(most: int) -> list[int]:
    """Return 1, 2, 4, ..., up to the first one that is not below `most`."""
    return [1 << k for k in range((most - 1).bit_length() + 1)]
