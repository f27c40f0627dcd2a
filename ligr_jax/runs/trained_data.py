"""Schema and statistics of the data of a run, which its evaluation on other data needs.

Numbers and buckets enter a model by the quantiles of its training data. A run directory keeps them
in data.json, so that a run can be evaluated on data prepared later, also if the training data have
been replaced.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from ligr_jax.config import Config, ConfigError
from ligr_jax.data.manifest import MANIFEST, Manifest, load_manifest, parse_manifest
from ligr_jax.digests import read_json, write_json
from ligr_jax.runs.files import RunFiles
from ligr_jax.store.mirror import local_path
from ligr_jax.store.stage import stage_file

_LEFT_OUT = ("files", "columns")  # parts of `Manifest.source` that may be long


@dataclass(frozen=True)
class TrainedData:
    """The data of a run.

    Attributes:
        digest: digest of the prepared data.
        manifest: its manifest without files; the splits are those of the run.
    """

    digest: str
    manifest: Manifest


def write_trained_data(directory: Path, digest: str, manifest: Manifest) -> None:
    """Write data.json.

    Args:
        directory: directory of the run.
        digest: digest of the prepared data.
        manifest: manifest of the data, with the splits of the run.
    """
    source = {k: v for k, v in manifest.source.items() if k not in _LEFT_OUT}
    kept = replace(manifest, shards=(), index=(), items=None, source=source)
    write_json(RunFiles(directory).data, {"data": digest, "manifest": kept.content()})


def load_trained_data(directory: Path, config: Config) -> TrainedData:
    """Return the data of a run; runs of earlier releases need the prepared data themselves.

    Args:
        directory: directory of the run.
        config: configuration of the run.

    Raises:
        ConfigError: nothing describes the data of the run any more.
        DamagedFile: data.json is damaged.
    """
    path = RunFiles(directory).data
    stage_file(path)
    if path.is_file():
        raw = read_json(path, "restore it from a copy")
        return TrainedData(raw["data"], parse_manifest(raw["manifest"], path))
    prepared = local_path(config.data.dir)
    stage_file(prepared / MANIFEST)
    if (prepared / MANIFEST).is_file():
        manifest = load_manifest(prepared)
        if manifest.digest == config.data.digest:
            return TrainedData(manifest.digest, manifest)
    raise ConfigError(
        f"{directory} has no {path.name}, as runs of earlier releases, and {prepared} no longer "
        f"holds its data (digest {config.data.digest}): the statistics that scale its features are "
        "not known; restore these data, or train the run again"
    )
