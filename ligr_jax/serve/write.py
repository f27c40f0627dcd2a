"""Writing an artifact: `ligr export`.

All processes of a run write their parts of the tables. Process 0 then writes everything else,
scores the golden requests through the files that it has written, and makes the version current.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from ligr_jax.atomic import make_directory
from ligr_jax.config import Config, ScoringConfig, config_to_json, digest
from ligr_jax.data.batch import Batch
from ligr_jax.digests import digest_json
from ligr_jax.nn.batch_norm import STATISTICS
from ligr_jax.nn.models import make_model
from ligr_jax.parallel.processes import is_first
from ligr_jax.runs.directory import load_config
from ligr_jax.runs.provenance import provenance
from ligr_jax.serve.artifact import FUNCTIONS, Artifact, function_file
from ligr_jax.serve.golden import (
    TOLERANCE,
    Golden,
    golden_scores,
    host_signature,
    largest_differences,
    require_golden_scores,
    write_golden,
)
from ligr_jax.serve.lowering import lower_operations, portable
from ligr_jax.serve.manifest import (
    ARTIFACT_MANIFEST,
    GOLDEN,
    PARAMS,
    VALID_FOR,
    ArtifactManifest,
    schema_of,
    version_digests,
    write_manifest,
)
from ligr_jax.serve.operations import compiled_operations
from ligr_jax.serve.params import save_tree
from ligr_jax.serve.requests import requests_of, sample_windows
from ligr_jax.serve.run_state import SparseRows, dense_variables, rows_of_batch, table_sources
from ligr_jax.serve.sensitivity import quantization_report
from ligr_jax.serve.stablehlo import PLATFORMS, write_function
from ligr_jax.store.mirror import with_uris
from ligr_jax.tables.export import write_tables
from ligr_jax.tables.versions import (
    LEAST_KEPT,
    TABLES_DIRECTORY,
    listed_versions,
    new_version,
    publish_version,
    writing_version,
)
from ligr_jax.tables.zarr import start
from ligr_jax.train.evaluate import restore

_GOLDEN_REQUESTS = 4


@dataclass(frozen=True)
class ExportOptions:
    """What an export contains.

    Attributes:
        bits: bits of a value of a table: 32, 8 or 4.
        keep: number of the newest versions to keep.
        candidates: largest number of candidates of a request.
        scoring: settings of split scoring, and sizes of arrays.
    """

    bits: int = 32
    keep: int = LEAST_KEPT
    candidates: int = 512
    scoring: ScoringConfig = field(default_factory=ScoringConfig)


def export_artifact(
    run: Path,
    directory: Path,
    options: ExportOptions | None = None,
    data: Path | None = None,
    assignments: Sequence[str] = (),
    step: int | None = None,
) -> str:
    """Add a version to an artifact and make it the current one.

    Every process of a run calls this with the same arguments.

    Args:
        run: run directory.
        directory: directory of the artifact, created if it is absent.
        options: what the export contains; None for the defaults.
        data, assignments, step: as in `ligr_jax.train.evaluate.restore`.

    Returns:
        The name of the version.

    Raises:
        ConfigError: `run` is not a run, or its data are absent.
        LigrError: the directory has other files.
        Busy: another process is exporting to the directory.
        ArtifactError: a function of the model cannot be exported.
    """
    options = options or ExportOptions()
    evaluator, state = restore(run, data, assignments=assignments, step=step)
    config = evaluator.config
    about = {
        "directory": with_uris(str(run)),
        "digest": digest(load_config(run)),
        "step": int(state.step),
    }
    with _writing(directory) as version:
        index = write_tables(
            table_sources(evaluator.layout, state), version / TABLES_DIRECTORY, options.bits, about
        )
        variables = dense_variables(evaluator, state)
        windows = sample_windows(evaluator.records, config, _GOLDEN_REQUESTS)
        exact = rows_of_batch(evaluator, state, windows)
        if is_first():
            save_tree(version / PARAMS, variables)
            now = datetime.now(UTC).replace(microsecond=0)
            schema = schema_of(evaluator.records.manifest, config.model)
            functions = _write_functions(version, config, variables, options)
            manifest = ArtifactManifest(
                exported=now.isoformat(),
                expires=(now + VALID_FOR).isoformat(),
                versions=provenance(),
                run=about,
                config=json.loads(config_to_json(config)),
                schema=schema,
                schema_digest=digest_json(schema),
                data_digest=evaluator.records.digest,
                bits=options.bits,
                tables=index["tables"],
                scoring=dataclasses.asdict(options.scoring),
                functions=functions,
                platforms=PLATFORMS,
                golden={},
                files={},
            )
            golden = _write_golden(version, manifest, windows, exact, options.candidates)
            manifest = dataclasses.replace(manifest, golden=golden)
            manifest = dataclasses.replace(manifest, files=version_digests(version))
            name = f"{about['step']:08d}-{write_manifest(version, manifest)[:8]}"
            publish_version(directory, name, ARTIFACT_MANIFEST, options.keep)
    if jax.process_count() > 1:  # the runtime of process 0 needs the others until the end
        multihost_utils.sync_global_devices("ligr export: current")
    return listed_versions(directory)[0]


def _write_functions(
    version: Path, config: Config, variables: Mapping[str, Any], options: ExportOptions
) -> dict[str, list[int]]:
    """Write all functions; return the sizes of each operation."""
    make_directory(version / FUNCTIONS)
    sizes: dict[str, list[int]] = {}
    for name, size, exported in lower_operations(
        config.model,
        variables["params"],
        variables[STATISTICS],
        options.scoring,
        options.scoring.impressions or config.data.seq_len // 2,
        options.candidates,
    ):
        write_function(version / function_file(name, size), exported)
        sizes.setdefault(name, []).append(size)
    return sizes


def _write_golden(
    version: Path,
    manifest: ArtifactManifest,
    windows: Batch,
    exact: Mapping[str, SparseRows],
    candidates: int,
) -> dict[str, Any]:
    """Score the golden requests through the artifact; compare with the model in this process."""
    artifact = Artifact(version, manifest)
    model = portable(artifact.model)
    requests = requests_of(windows, model, candidates)
    scores = golden_scores(artifact, requests.history, requests.candidates)
    write_golden(version / GOLDEN, Golden(requests.history, requests.candidates, scores))

    # The same rows through the model: only the export differs. The exact rows: only the tables.
    operations = compiled_operations(make_model(model), artifact.scoring.set_top)
    here = artifact.replaced(operations=operations)
    tolerance = TOLERANCE[model.dtype]
    same_rows = require_golden_scores(
        version, golden_scores(here, requests.history, requests.candidates), scores, tolerance
    )
    here = artifact.replaced(
        operations=operations, tables={name: rows.read for name, rows in exact.items()}
    )
    run_scores = golden_scores(here, requests.history, requests.candidates)
    result = {
        "requests": len(windows.member),
        "tolerance": tolerance,
        "host": host_signature(),
        "difference_from_model": same_rows,
        "difference_from_run": largest_differences(run_scores, scores),
    }
    if manifest.bits != 32:
        result["quantization"] = quantization_report(artifact, windows, exact)
    return result


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[Path]:
    """Yield the directory of the new version, which process 0 has locked and emptied."""
    if not is_first():
        yield new_version(directory)
        return
    with writing_version(directory) as version:
        make_directory(version / TABLES_DIRECTORY)
        start(version / TABLES_DIRECTORY, overwrite=False)
        yield version
