"""Verification of everything with digests: data, runs, sweeps, artifacts, stores, semantic ids."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ligr_jax.atomic import version_of
from ligr_jax.data.manifest import MANIFEST, Shard, load_manifest
from ligr_jax.data.verify import damage, files_of
from ligr_jax.digests import digest_file, read_json
from ligr_jax.errors import LigrError, file_errors
from ligr_jax.runs.checkpoint_files import DIGESTS, is_sealed, require_intact, steps_in
from ligr_jax.runs.directory import load_config, load_summary
from ligr_jax.runs.files import PREDICTION_FILES, SWEEP, RunFiles
from ligr_jax.runs.listed import read_listed
from ligr_jax.runs.rows import read_rows
from ligr_jax.runs.staged import stage_runs
from ligr_jax.scaling.fit.registered import read_registered
from ligr_jax.serve.activity import ActivityStore
from ligr_jax.serve.activity_file import ACTIVITY
from ligr_jax.serve.manifest import ARTIFACT_MANIFEST, read_manifest, require_intact_version
from ligr_jax.tables.versions import CURRENT, listed_versions, version_directory
from ligr_jax.tables.zarr import (
    INDEX,
    arrays_of,
    bytes_of,
    existing_array,
    load_index,
    table_directory,
)

_BLOCK = 65_536  # rows of a table read together
_THREADS = 8


class CheckResult(NamedTuple):
    """Result of the check of one file or directory.

    Attributes:
        path: the file or directory.
        kind: kind of content, e.g. "checkpoint".
        problem: the damage, or why it cannot be read; "" if there is none.
        note: a remark, e.g. that there is nothing to compare with.
    """

    path: str
    kind: str
    problem: str = ""
    note: str = ""


def verify(path: Path) -> Iterator[CheckResult]:
    """Check the content of a directory, without changing anything.

    Args:
        path: prepared data, a run, the directory of a sweep, an artifact, exported tables, a model
            of semantic ids, or an activity store.

    Yields:
        A result for each file or directory with a digest.

    Raises:
        LigrError: the directory has no content of these kinds.
    """
    stage_runs(path, checkpoints=True)
    if (path / MANIFEST).exists():
        yield from _unless_replaced(path / MANIFEST, _data(path))
    elif (path / CURRENT).exists():
        yield from _unless_replaced(path / CURRENT, _artifact(path))
    elif (path / INDEX).exists():
        yield from _unless_replaced(path / INDEX, _export(path))
    elif (path / "model.json").exists():
        yield _check(path, "semantic ids", lambda: _load_model(path))
    elif (path / ACTIVITY).exists():
        yield _check(path, "store", lambda: _read_store(path))
    elif _is_run(path):
        yield from _run(path)
    elif path.is_dir() and ((path / SWEEP).exists() or any(map(_is_run, path.iterdir()))):
        yield from _sweep(path)
    else:
        raise LigrError(
            f"{path}: nothing to verify; name prepared data, a run, a sweep's directory, an "
            "artifact, exported tables, a model of semantic ids or an activity store"
        )


def _is_run(path: Path) -> bool:
    return RunFiles(path).exists or RunFiles(path).checkpoints.exists()


def _check(path: Path, kind: str, check: Callable[[], object], note: str = "") -> CheckResult:
    """Return the result of a check that raises an error for damage."""
    try:
        check()
    except (LigrError, OSError) as e:
        return CheckResult(str(path), kind, str(e), note)
    return CheckResult(str(path), kind, note=note)


def _unless_replaced(index: Path, results: Iterator[CheckResult]) -> Iterator[CheckResult]:
    """Yield the results, and a problem if another process replaced the output meanwhile.

    Args:
        index: file that is removed first and written last when the output is replaced.
        results: results of the files that the index names.
    """
    version = version_of(index)
    yield from results
    if version_of(index) != version:
        problem = "replaced by another process during the check; run `ligr verify` again"
        yield CheckResult(str(index), "replacement", problem)


def _data(path: Path) -> Iterator[CheckResult]:
    manifest = _check(path / MANIFEST, "manifest", lambda: load_manifest(path))
    yield manifest
    if manifest.problem:
        return

    def check(file: Shard) -> CheckResult:
        try:
            problem = damage(path / file.file, file)
        except LigrError as e:
            problem = str(e)
        return CheckResult(str(path / file.file), "shard", problem)

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(check, files_of(load_manifest(path)))


def _run(path: Path) -> Iterator[CheckResult]:
    files = RunFiles(path)
    yield _check(files.config, "configuration", lambda: load_config(path))
    if files.data.exists():
        yield _check(files.data, "data", lambda: read_json(files.data, "restore it from a copy"))
    if files.metrics.exists():
        yield _check(files.metrics, "metrics", lambda: read_rows(files.metrics))
    if files.summary.exists():
        yield _check(files.summary, "summary", lambda: load_summary(path))
    for number in reversed(steps_in(files.checkpoints)):
        step = files.checkpoints / str(number)
        if is_sealed(step):
            yield _check(step, "checkpoint", partial(require_intact, step))
        else:
            note = f"not checked: it has no {DIGESTS}, as those of earlier releases"
            yield CheckResult(str(step), "checkpoint", note=note)
    for aside in sorted(files.checkpoints.glob("*.damaged*")):
        yield CheckResult(str(aside), "checkpoint", note="set aside by its run: damaged")


def _sweep(path: Path) -> Iterator[CheckResult]:
    if (path / SWEEP).exists():
        yield _check(path / SWEEP, "points", lambda: read_listed(path / SWEEP))
    for file in sorted(path.glob(PREDICTION_FILES)):
        yield _check(file, "prediction", partial(read_registered, file))
    for run in sorted(p for p in path.iterdir() if p.is_dir() and _is_run(p)):
        yield from _run(run)


def _artifact(path: Path) -> Iterator[CheckResult]:
    current = _check(path / CURRENT, "current", lambda: listed_versions(path))
    yield current
    if current.problem:
        return
    for name in listed_versions(path):
        version = version_directory(path, name)
        manifest = _check(version / ARTIFACT_MANIFEST, "manifest", partial(read_manifest, version))
        yield manifest
        if not manifest.problem:
            check = partial(require_intact_version, version, read_manifest(version))
            yield _check(version, "version", check)


def _export(path: Path) -> Iterator[CheckResult]:
    index = _check(path / INDEX, "index", lambda: load_index(path))
    yield index
    if index.problem:
        return
    about = load_index(path)
    for name, digest in about.get("files", {}).items():
        yield _check(path / name, "metadata", partial(_require_digest, path / name, digest))
    for name, table in about["tables"].items():
        folder = table_directory(path, name)
        yield _check(folder, "table", partial(_read_table, folder, table))


def _require_digest(path: Path, digest: str) -> None:
    with file_errors("read", path):
        actual = digest_file(path)
    if actual != digest:
        raise LigrError(f"{path} has xxh64 {actual}, {digest} was written; export the tables again")


def _read_table(path: Path, about: dict[str, int]) -> None:
    """Read every chunk of a table, so that its checksum is compared.

    Args:
        path: directory of the table.
        about: entry of the table in the index.

    Raises:
        LigrError: a file is missing, of another size, or damaged.
    """
    size = bytes_of(path)
    if size != about["bytes"]:
        raise LigrError(
            f"{path} has {size:,} bytes, {about['bytes']:,} were written; export it again"
        )
    for array, expected in arrays_of(about["rows"], about["width"], about["bits"]).items():
        try:
            opened = existing_array(path / array)
            if (opened.dtype.name, opened.shape) != expected:
                raise ValueError(f"it is {opened.dtype.name} {list(opened.shape)}")
            for first in range(0, about["rows"], _BLOCK):
                opened[first : min(first + _BLOCK, about["rows"])].read().result()
        except ValueError as e:
            text = str(e).split(" [")[0]
            raise LigrError(f"{path / array}: damaged ({text}); export the table again") from e


def _read_store(path: Path) -> None:
    with ActivityStore(path) as store:
        store.require_intact()


def _load_model(path: Path) -> None:
    from ligr_jax.sid.model import load_model  # needs JAX

    load_model(path)
