"""`load_artifact`: scores from an artifact, without the code of its model.

    artifact = load_artifact("exports/first")          # the current version
    cache = artifact.encode(histories)                 # the methods of `Scorer`
    artifact.rank(cache, candidates).order_BC

Each function is read and compiled on first use.
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax

from ligr_jax.config import ScoringConfig
from ligr_jax.data.batch import Batch
from ligr_jax.data.schema import BadInput
from ligr_jax.serve.cache import Cache
from ligr_jax.serve.manifest import (
    PARAMS,
    ArtifactManifest,
    read_manifest,
    require_intact_version,
    require_valid,
)
from ligr_jax.serve.params import load_tree
from ligr_jax.serve.request_scorer import Operations, RequestScorer
from ligr_jax.serve.rows import HostTables
from ligr_jax.serve.split import Ranking
from ligr_jax.serve.stablehlo import Function, read_function
from ligr_jax.store.mirror import local_path, uri_of
from ligr_jax.store.stage import stage
from ligr_jax.tables.versions import TABLES_DIRECTORY, version_directory

FUNCTIONS = "functions"


class Artifact(RequestScorer):
    """A version of an artifact; create it with `load_artifact`.

    Attributes:
        directory: directory of the version; its name is the name of the version.
        manifest: the manifest.
        tables: rows of the tables.
        dense_variables: dense parameters and batch statistics.
    """

    def __init__(self, directory: Path, manifest: ArtifactManifest) -> None:
        """
        Args:
            directory: directory of the version, whose files are intact.
            manifest: its manifest.

        Raises:
            DamagedTable: a chunk of a table is damaged.
        """
        self.directory, self.manifest = directory, manifest
        arrays = load_tree(directory / PARAMS)
        self.dense_variables = arrays.get("params", {}), arrays.get("batch_stats", {})
        self.tables = HostTables(directory / TABLES_DIRECTORY, manifest.tables)
        readers = {name: partial(self.tables.rows, name) for name in manifest.tables}
        scoring = ScoringConfig(
            set_top=manifest.scoring["set_top"],
            weights=tuple(manifest.scoring["weights"]),
            position=manifest.scoring["position"],
            impressions=manifest.scoring["impressions"],
            smallest=manifest.scoring["smallest"],
        )
        self._functions: dict[str, Function] = {}
        super().__init__(
            manifest.run_config,
            *self.dense_variables,
            readers,
            scoring,
            Operations(
                encode=self._encode,
                append=self._append,
                score=partial(self._logits, "score"),
                positions=partial(self._logits, "positions"),
                rank=partial(self._ranking, "rank"),
                session=partial(
                    self._ranking, "session" if "session" in manifest.functions else "rank"
                ),
            ),
        )

    @property
    def most_candidates(self) -> int:
        """Largest number of candidates of a request."""
        result: int = max(self.manifest.functions["rank"])
        return result

    def _encode(self, inputs: Any, histories: Batch) -> Cache:
        return Cache(**self._function("encode", histories)(inputs, histories._asdict()))

    def _append(self, inputs: Any, cache: Cache, impressions: Batch) -> Cache:
        function = self._function("append", impressions)
        return Cache(**function(inputs, cache._asdict(), impressions._asdict()))

    def _logits(self, name: str, inputs: Any, cache: Cache, candidates: Batch) -> jax.Array:
        function = self._function(name, candidates)
        logits: jax.Array = function(inputs, cache._asdict(), candidates._asdict())
        return logits

    def _ranking(
        self, name: str, inputs: Any, cache: Cache, candidates: Batch, weights: jax.Array
    ) -> Ranking:
        function = self._function(name, candidates)
        return Ranking(*function(inputs, cache._asdict(), candidates._asdict(), weights))

    def _function(self, name: str, batch: Batch) -> Function:
        """Return the function of an operation for the size of a batch."""
        size, largest = batch.member.shape[1], max(self.manifest.functions[name])
        if size > largest:
            raise BadInput(
                f"{name} of {size:,} impressions or candidates, and the artifact has functions for "
                f"at most {largest:,}; send fewer, or export with --candidates {size}"
            )
        file = function_file(name, size)
        if file not in self._functions:
            self._functions[file] = read_function(self.directory / file)
        return self._functions[file]


def function_file(name: str, size: int) -> str:
    """Return the name of the file of a function, relative to the version."""
    return f"{FUNCTIONS}/{name}_{size}.bin"


def load_artifact(
    directory: str | Path, version: str = "", allow_expired: bool = False
) -> Artifact:
    """Load a version of an artifact, compared with its digests.

    Chunks of tables are compared with their checksums when they are read.

    Args:
        directory: directory or URI that `ligr export` wrote.
        version: name of the version; "" for the current one.
        allow_expired: whether to load an artifact whose promise of compatibility has ended.

    Raises:
        VersionError: there is no such version.
        DamagedArtifact, DamagedTable: a file is not what was written; it is named.
        ExpiredArtifact: the promise has ended.
        ArtifactError: the format is newer, or the platform has no function.
    """
    path = version_directory(local_path(directory), version)
    manifest = read_manifest(path)
    if uri_of(path) is not None:
        stage(path, digests=manifest.files)
    if not allow_expired:
        require_valid(path, manifest)
    require_intact_version(path, manifest, chunks=False)
    return Artifact(path, manifest)
