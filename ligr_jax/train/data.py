"""Prepared data opened for training and evaluation: verified once per host and start."""

from pathlib import Path

from ligr_jax.config import ConfigError, ModelConfig
from ligr_jax.data.manifest import MISSING, load_manifest
from ligr_jax.data.records import Records
from ligr_jax.data.verify import require_undamaged
from ligr_jax.parallel.processes import is_first_of_host


def open_verified(
    directory: str | Path,
    edges: tuple[int, ...],
    digest: str = "",
) -> Records:
    """Open prepared data, compared with its digests by the first process of each host.

    Args:
        directory: output of `ligr prepare`.
        edges: boundaries of the splits; see `Records`.
        digest: that the data must have; "" accepts any.

    Raises:
        DamagedData: a file is not what `ligr prepare` wrote.
        BadInput: there are no prepared data, or they have another digest.
    """
    if is_first_of_host():
        require_undamaged(Path(directory), load_manifest(Path(directory)))
    return Records(directory, edges, digest)


def require_rows_for_ids(model: ModelConfig, records: Records) -> None:
    """Refuse, before training, an id of any split that a direct lookup has no row for.

    Raises:
        ConfigError: names the feature, the id and the remedy.
    """
    for name, feature in model.features.items():
        if feature.kind != "categorical" or feature.lookup != "direct":
            continue
        for ids in records.ids(name):
            outside = ids[((ids < 0) | (ids >= feature.rows - 1)) & (ids != MISSING)]
            if len(outside):
                largest = max((int(part.max(initial=0)) for part in records.ids(name)), default=0)
                rows = f"model.features.{name}.rows >= {largest + 2}"
                remedy = f"set {rows}, or lookup=hash" if outside.min() >= 0 else "set lookup=hash"
                raise ConfigError(
                    f"model.features.{name}.lookup=direct has a row for ids 0 to "
                    f"{feature.rows - 2}, and {records.directory} holds id {int(outside[0])} "
                    f"(in any of its splits); {remedy}"
                )
