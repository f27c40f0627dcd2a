"""The manifest of an artifact's version, and the checks that every reader makes.

A version, `DIR/versions/NAME/`, has

    manifest.json     this file's `ArtifactManifest`, with the digest of every other file
    params.npz        dense parameters and batch statistics, float32 by path
    functions/*.bin   functions serialized by `jax.export`, for CPU, CUDA and TPU
    tables/           exported tables (`ligr_jax.tables.zarr`)
    golden.npz        golden requests and their scores

Nothing in the functions depends on the values of parameters and tables.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ligr_jax.config import Config, ModelConfig, config_from_plain
from ligr_jax.data.manifest import Manifest, column_stats
from ligr_jax.digests import DamagedFile, digest_file, digest_json, read_json, write_json
from ligr_jax.errors import LigrError, file_errors
from ligr_jax.store.stage import stage

ARTIFACT_MANIFEST = "manifest.json"
PARAMS = "params.npz"
GOLDEN = "golden.npz"
FORMAT_NAME = "ligr-artifact"
ARTIFACT_FORMAT = 1
# `jax.export` promises that a JAX at most six months newer than the exporting one runs a function.
VALID_FOR = timedelta(days=182)


class ArtifactError(LigrError, ValueError):
    """An artifact cannot be written, read or used."""


class DamagedArtifact(ArtifactError):
    """Files of an artifact differ from those written."""


class ExpiredArtifact(ArtifactError):
    """The promise of compatibility of an artifact's functions has ended."""


@dataclass(frozen=True)
class ArtifactManifest:
    """Description of a version of an artifact.

    Attributes:
        exported: time of the export, ISO 8601 in UTC.
        expires: time at which the promise of compatibility of `jax.export` ends.
        versions: versions of Python and of packages at the export, by name.
        run: directory, digest and step of the run.
        config: configuration of the run, as JSON.
        schema: what turns raw values into ids and numbers: `actions`, and `columns` as JSON of
            `ligr_jax.data.manifest.ColumnStats`.
        schema_digest: digest of `schema`.
        data_digest: digest of the prepared data of the run.
        bits: bits of a value of a table.
        tables: rows, width, bytes and rmse of each table.
        scoring: parameters of split scoring.
        functions: name and shapes of each file in `functions/`.
        platforms: platforms that the functions are lowered for.
        golden: number of golden requests, largest differences and tolerance.
        files: xxh64 of every other file, by path relative to the version.
    """

    exported: str
    expires: str
    versions: Mapping[str, str]
    run: Mapping[str, Any]
    config: Mapping[str, Any]
    schema: Mapping[str, Any]
    schema_digest: str
    data_digest: str
    bits: int
    tables: Mapping[str, Any]
    scoring: Mapping[str, Any]
    functions: Mapping[str, Any]
    platforms: tuple[str, ...]
    golden: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def run_config(self) -> Config:
        """Configuration of the run."""
        return config_from_plain(self.config)

    @property
    def data_schema(self) -> Manifest:
        """The schema as the manifest of prepared data without data, for `Assembler`."""
        columns = {name: column_stats(raw) for name, raw in self.schema["columns"].items()}
        return Manifest(
            actions=tuple(self.schema["actions"]), columns=columns, splits={}, shards=(), counts={}
        )

    def is_expired(self, now: datetime | None = None) -> bool:
        """Return whether the promise of compatibility has ended."""
        return (now or datetime.now(UTC)) >= datetime.fromisoformat(self.expires)


def schema_of(manifest: Manifest, model: ModelConfig) -> dict[str, Any]:
    """Return `ArtifactManifest.schema` of a model.

    Args:
        manifest: manifest of the prepared data.
        model: features and actions.
    """
    columns = {name: dataclasses.asdict(manifest.columns[name]) for name in sorted(model.features)}
    return {"actions": list(model.actions), "columns": columns}


def write_manifest(version: Path, manifest: ArtifactManifest) -> str:
    """Write the manifest of a version, last of all files.

    Args:
        version: directory of the version.
        manifest: its manifest.

    Returns:
        Sixteen hex digits over the manifest.
    """
    content = {"format": FORMAT_NAME, "version": ARTIFACT_FORMAT, **dataclasses.asdict(manifest)}
    write_json(version / ARTIFACT_MANIFEST, content)
    return digest_json(content)


def read_manifest(version: Path) -> ArtifactManifest:
    """Read the manifest of a version.

    Args:
        version: directory of the version.

    Raises:
        DamagedArtifact: the manifest is absent, damaged or not complete.
        ArtifactError: the format is another one.
    """
    path = version / ARTIFACT_MANIFEST
    stage(version, [ARTIFACT_MANIFEST])
    if not path.is_file():
        raise DamagedArtifact(f"{version} has no {ARTIFACT_MANIFEST}; export the run again")
    try:
        content = read_json(path, "export the run again")
    except DamagedFile as e:
        raise DamagedArtifact(str(e)) from e
    found = content.pop("format", None), content.pop("version", None)
    if found[0] != FORMAT_NAME:
        raise ArtifactError(f"{path}: not the manifest of an artifact; export the run again")
    if found[1] != ARTIFACT_FORMAT:
        raise ArtifactError(
            f"{path} has format version {found[1]}, but this release reads version "
            f"{ARTIFACT_FORMAT}; install the release that wrote it, or export the run again"
        )
    try:
        return ArtifactManifest(**{**content, "platforms": tuple(content["platforms"])})
    except (KeyError, TypeError) as e:
        raise DamagedArtifact(f"{path}: not a complete manifest ({e}); export again") from e


def require_valid(version: Path, manifest: ArtifactManifest) -> None:
    """Raise ExpiredArtifact if the promise of compatibility of an artifact has ended."""
    if manifest.is_expired():
        raise ExpiredArtifact(
            f"{version} expired on {manifest.expires[:10]}: it was exported on "
            f"{manifest.exported[:10]} with JAX {manifest.versions['jax']}, and jax.export "
            "promises compatibility for six months; export the run again, or check the scores "
            "with `ligr check --allow-expired`"
        )


def version_digests(version: Path) -> dict[str, str]:
    """Return the xxh64 of every file of a version except the manifest."""
    return {name: digest_file(version / name) for name in version_files(version)}


def version_files(version: Path) -> Iterator[str]:
    """Yield the names of all files of a version except the manifest, without hidden files."""
    for path in sorted(p for p in version.rglob("*") if p.is_file()):
        name = path.relative_to(version)
        if str(name) != ARTIFACT_MANIFEST and not any(part.startswith(".") for part in name.parts):
            yield str(name)


def require_intact_version(version: Path, manifest: ArtifactManifest, chunks: bool = True) -> None:
    """Compare the files of a version with their digests.

    Args:
        version: directory of the version.
        manifest: its manifest.
        chunks: whether to compare the chunks of tables too. They have checksums, which are also
            compared when rows are read.

    Raises:
        DamagedArtifact: a file is missing or differs from what was written, or there are others.
    """
    for name, digest in manifest.files.items():
        if not chunks and is_chunk(name):
            continue
        path = version / name
        if not path.is_file():
            raise DamagedArtifact(f"{path} is missing; restore it, or export the run again")
        with file_errors("read", path):
            actual = digest_file(path)
        if actual != digest:
            raise DamagedArtifact(
                f"{path} is damaged: xxh64 {actual}, but {digest} was written; restore it from a "
                "copy, or export the run again"
            )
    others = sorted(set(version_files(version)) - set(manifest.files))
    if others:
        raise DamagedArtifact(
            f"{version / others[0]} does not belong to the artifact; remove it, or export again"
        )


def is_chunk(name: str) -> bool:
    """Return whether a file of a version is a shard of a table."""
    return name.startswith("tables/") and name.split("/")[3:4] == ["c"]  # tables/TABLE/ARRAY/c/...
