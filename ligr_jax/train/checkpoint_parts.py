"""Checkpoints that several hosts write without a common file system, through an object store.

Orbax lets every process write its shards below one directory, and process 0 merges them. In the
working copy of a store each host has a directory of its own: a process uploads its part when it is
on disk, and process 0 fetches the parts before it merges them. Orbax waits for all parts before
process 0 begins.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from ligr_jax.parallel.processes import is_first
from ligr_jax.store.mirror import uri_of
from ligr_jax.store.objects import write_object
from ligr_jax.store.stage import stage

_THREADS = 8


def handler(directory: Path) -> ocp.PyTreeCheckpointHandler:
    """Return the handler of states in a directory of checkpoints."""
    # Trained floats compress badly, and compression needs another copy of each table.
    if uri_of(directory) is not None and jax.process_count() > 1:
        return _SharedByStore(use_compression=False)
    return ocp.PyTreeCheckpointHandler(use_compression=False)


class _SharedByStore(ocp.PyTreeCheckpointHandler):  # type: ignore[misc]  # orbax has no types
    async def async_save(self, directory: Any, *args: Any, **kwargs: Any) -> Any:
        futures = await super().async_save(directory, *args, **kwargs)
        if is_first():
            return futures
        return [_UploadedPart(futures or [], Path(str(directory.path)))]

    def finalize(self, directory: Any) -> None:
        folder = Path(directory)
        stage(folder, lambda name: not (folder / name).exists(), owned=True)
        super().finalize(directory)


class _UploadedPart:
    """The commit of this process's part: it is on disk, then in the store."""

    def __init__(self, futures: Sequence[Any], directory: Path) -> None:
        self._futures, self._directory = futures, directory

    def result(self, timeout: float | None = None) -> None:
        for future in self._futures:
            future.result(timeout)
        uri = uri_of(self._directory)
        files = [p for p in self._directory.rglob("*") if p.is_file()]
        names = [str(p.relative_to(self._directory)) for p in files]
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda n: write_object(f"{uri}/{n}", self._directory / n), names))
