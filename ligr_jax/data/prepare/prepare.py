"""A log of impressions becomes sorted member histories in memory-mapped shards.

Two passes, both in bounded memory. The first reads the log once, checks every row and cuts it into
partitions of members; the second sorts one partition at a time and writes it as a shard. The output
is a pure function of the input's bytes and the options.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ligr_jax.data.manifest import Manifest
from ligr_jax.data.prepare.build import Build
from ligr_jax.data.prepare.options import PrepareOptions
from ligr_jax.data.prepare.publish import published
from ligr_jax.data.sources.source import Source


def prepare(
    source: Source,
    out: str | Path,
    options: PrepareOptions | None = None,
) -> Manifest:
    """Prepares `source` in directory `out` and returns the manifest.

    An output already made from the same source with the same options is returned as it is. A run
    that fails leaves no manifest, and an earlier output untouched.

    Raises:
        BadInput: a bad log or bad options, an output made otherwise (without `overwrite`), or a
            directory that cannot be written.
    """
    options = options or PrepareOptions()

    def build(work: Path, made_by: Mapping[str, Any]) -> Manifest:
        return Build(source, options, work).run(made_by)

    made_by = {**source.description, "options": options.description()}
    return published(Path(out), made_by, build, options.overwrite)
