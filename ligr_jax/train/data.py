"""Prepared data opened for training and evaluation: verified once per host and start."""

from collections.abc import Mapping
from pathlib import Path

from ligr_jax.data.manifest import ColumnStats, load_manifest
from ligr_jax.data.records import Records
from ligr_jax.data.verify import require_undamaged
from ligr_jax.parallel.processes import is_first_of_host
from ligr_jax.store.mirror import local_path


def open_verified(
    directory: str | Path,
    edges: tuple[int, ...],
    digest: str = "",
    statistics: Mapping[str, ColumnStats] | None = None,
) -> Records:
    """Open prepared data, compared with its digests by the first process of each host.

    Args:
        directory: output of `ligr prepare`.
        edges: boundaries of the splits; see `Records`.
        digest: that the data must have; "" accepts any.
        statistics: of columns, which replace those of the data; see `Records`.

    Raises:
        DamagedData: a file is not what `ligr prepare` wrote.
        BadInput: there are no prepared data, or they have another digest.
    """
    directory = local_path(directory)
    if is_first_of_host():
        require_undamaged(directory, load_manifest(directory))
    return Records(directory, edges, digest, statistics)
