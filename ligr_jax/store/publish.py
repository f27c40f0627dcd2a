"""Publishing: files of a working copy are uploaded as whole objects when they are complete.

A directory that is one result, such as prepared data, is uploaded as a tree: its index is removed
first and uploaded last, so that readers of the store see a complete directory or none.
"""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ligr_jax.store.lease import require_owned
from ligr_jax.store.mirror import uri_of
from ligr_jax.store.objects import list_objects, remove_object, write_object
from ligr_jax.store.versions import forget_version, is_current, record_version

_THREADS = 8  # objects uploaded at the same time
_trees: list[Path] = []  # directories that are published as a whole
_trees_lock = threading.Lock()


def publish(path: Path) -> None:
    """Upload a file of a working copy that is complete; do nothing for other paths.

    Raises:
        LostLease: Another process has taken over the directory.
        StoreError: The store does not take the object.
    """
    uri = uri_of(path)
    if uri is None or any(path.is_relative_to(tree) for tree in _trees):
        return
    _upload(path, uri)


def unpublish(path: Path) -> None:
    """Remove the object of a file of a working copy; do nothing for other paths."""
    uri = uri_of(path)
    if uri is not None:
        require_owned(path)
        remove_object(uri)
        forget_version(path)


@contextlib.contextmanager
def as_tree(directory: Path) -> Iterator[None]:
    """Do not publish single files of a directory during the block."""
    if uri_of(directory) is None:
        yield
        return
    with _trees_lock:
        _trees.append(directory)
    try:
        yield
    finally:
        with _trees_lock:
            _trees.remove(directory)


@contextlib.contextmanager
def published_tree(directory: Path, index: str) -> Iterator[None]:
    """Publish a directory as a whole when the block ends without an error.

    Args:
        directory: Directory of a working copy; for another one, nothing is done.
        index: Name of the file that makes the directory complete.
    """
    with as_tree(directory):
        yield
    publish_tree(directory, index)


def publish_tree(directory: Path, index: str, target: Path | None = None) -> None:
    """Upload a directory, its index last, and remove objects that it no longer has.

    Args:
        directory: Directory of a working copy; for another one, nothing is done.
        index: Name of the file that makes the directory complete.
        target: Directory of the working copy that gives the URI, and that will have the files
            later; default: `directory`.
    """
    target = target or directory
    uri = uri_of(target)
    if uri is None:
        return
    paths = [p for p in sorted(directory.rglob("*")) if p.is_file()]
    names = [str(p.relative_to(directory)) for p in paths]
    names = [n for n in names if not n.startswith(".") and "/." not in n]
    stored = {o.name: o for o in list_objects(uri) if not o.name.startswith(".")}
    changed = [n for n in names if n not in stored or not is_current(directory / n, stored[n])]
    if not changed and stored.keys() == set(names):
        return
    if index in stored:
        unpublish(target / index)

    publish_files(directory, [n for n in changed if n != index], target)
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda n: unpublish(target / n), stored.keys() - {index, *names}))
    publish_files(directory, [index], target)


def publish_files(directory: Path, names: Iterable[str], target: Path) -> None:
    """Upload files of a directory.

    Args:
        directory: Directory that has the files.
        names: Names of the files in it.
        target: Directory of a working copy, which gives the URI.

    Raises:
        LostLease: Another process has taken over the directory.
        StoreError: The store does not take an object.
    """
    uri = uri_of(target)

    def upload(name: str) -> None:
        _upload(directory / name, f"{uri}/{name}", target / name)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(upload, names))


def _upload(path: Path, uri: str, target: Path | None = None) -> None:
    require_owned(path)
    record_version(target or path, write_object(uri, path), path)
