"""Versions of an artifact: complete directories, and `current.json`, which names the one to serve.

    DIR/current.json        {"version": NAME, "versions": [NAME, OLDER, ...]}
    DIR/versions/NAME/      one version; its files never change
    DIR/versions/.new/      a version that is being written, or that a crash left

`current.json` is replaced atomically after the version that it names is complete. A crash at any
point therefore leaves the former version current. Directories that `current.json` does not list
are removed after the next version has been written.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ligr_jax.atomic import make_directory, sync
from ligr_jax.contents import EXPORT, require_no_other, require_only
from ligr_jax.digests import read_json, write_json
from ligr_jax.errors import LigrError, file_errors
from ligr_jax.lock import exclusive
from ligr_jax.store.mirror import uri_of
from ligr_jax.store.objects import list_objects
from ligr_jax.store.publish import as_tree, publish_tree, unpublish
from ligr_jax.store.stage import stage_file

CURRENT = "current.json"
VERSIONS = "versions"
LEAST_KEPT = 3  # a reader that has just opened a version has until the third export after it
TABLES_DIRECTORY = "tables"  # directory of a version with its exported tables
_NEW = ".new"


class VersionError(LigrError, ValueError):
    """A directory has no usable version, or none can be added to it."""


def listed_versions(directory: Path) -> list[str]:
    """Return the names of the versions that `current.json` lists; the first one is current.

    Args:
        directory: directory of the artifact.

    Returns:
        Names of directories in DIR/versions; empty if there is no `current.json`.

    Raises:
        DamagedFile: `current.json` is damaged.
        VersionError: `current.json` names something else than versions.
    """
    path = directory / CURRENT
    stage_file(path)
    if not path.is_file():
        return []
    content = read_json(path, "restore it from a copy, or remove it and export again")
    names = [content.get("version"), *content.get("versions", [])[1:]]
    for name in names:
        if not isinstance(name, str) or not name or name.startswith(".") or "/" in name:
            raise VersionError(
                f"{path}: {name!r} is not the name of a version; remove the file and export again"
            )
    return names


def version_directory(directory: Path, name: str = "") -> Path:
    """Return the directory of a version.

    Args:
        directory: directory of the artifact.
        name: name of the version; "" for the current one.

    Raises:
        VersionError: there is no such version.
    """
    names = listed_versions(directory)
    if not names:
        raise VersionError(
            f"{directory} is not an artifact: it has no {CURRENT}; write one with "
            f"`ligr export RUN --out {directory}`"
        )
    if name and name not in names:
        raise VersionError(f"{directory} has no version {name!r}; it has {', '.join(names)}")
    return directory / VERSIONS / (name or names[0])


def tables_directory(directory: Path) -> Path:
    """Return the directory of the exported tables.

    Args:
        directory: exported tables, or an artifact, whose current version is taken.
    """
    if not listed_versions(directory):
        return directory
    return version_directory(directory) / TABLES_DIRECTORY


@contextmanager
def writing_version(directory: Path) -> Iterator[Path]:
    """Lock an artifact during the block and yield an empty directory for the new version.

    Nothing that is written there is published; `publish_version` does that.

    Args:
        directory: directory of the artifact, created if it is absent.

    Raises:
        LigrError: the directory has other files.
        Busy: another process is exporting to the directory.
    """
    require_no_other(directory, EXPORT)
    require_only(directory, EXPORT, (CURRENT, VERSIONS))
    with exclusive(directory, "is exporting there"):
        make_directory(directory / VERSIONS)
        _remove_unlisted(directory, listed_versions(directory))  # what a crash has left
        new = new_version(directory)
        make_directory(new)
        with as_tree(new):
            yield new


def new_version(directory: Path) -> Path:
    """Return the directory in which a new version is written."""
    return directory / VERSIONS / _NEW


def publish_version(directory: Path, name: str, index: str, keep: int = LEAST_KEPT) -> list[str]:
    """Make the new version the current one, and remove those that are too old.

    Args:
        directory: directory of the artifact; its new version is complete (`writing_version`).
        name: name of the new version, different from all others.
        index: the file of a version that lists its files, which is uploaded last.
        keep: number of the newest versions to keep, the new one included.

    Returns:
        Names of the versions, newest first.

    Raises:
        VersionError: `keep` is too small.
        FileError: the disk cannot be written.
    """
    if keep < LEAST_KEPT:
        raise VersionError(
            f"keep={keep}: readers may still use the versions before the current one; keep "
            f"{LEAST_KEPT} or more"
        )
    former = listed_versions(directory)
    new, target = new_version(directory), directory / VERSIONS / name
    with file_errors("write", target):
        _sync_tree(new)
        publish_tree(new, index, target=target)
        os.rename(new, target)
        sync(target.parent)
    kept = [name, *former][:keep]
    write_json(directory / CURRENT, {"version": name, "versions": kept})
    _remove_unlisted(directory, kept)
    return kept


def make_current(directory: Path, name: str) -> None:
    """Make an older version the current one again; all versions are kept.

    Args:
        directory: directory of the artifact.
        name: name of a version that is listed.

    Raises:
        VersionError: there is no such version.
        Busy: another process is exporting to the directory.
    """
    with exclusive(directory, "is exporting there"):
        version_directory(directory, name)
        others = [other for other in listed_versions(directory) if other != name]
        write_json(directory / CURRENT, {"version": name, "versions": [name, *others]})


def _sync_tree(directory: Path) -> None:
    """Return when all files and names below a directory are on disk."""
    for folder, _, files in os.walk(directory):
        for file in files:
            sync(Path(folder) / file)
        sync(Path(folder))


def _remove_unlisted(directory: Path, listed: Sequence[str]) -> None:
    """Remove versions that are not listed from the disk and from the object store."""
    versions = directory / VERSIONS
    uri = uri_of(versions)
    for stored in list_objects(uri) if uri else ():
        if stored.name.partition("/")[0] not in listed:
            unpublish(versions / stored.name)
    for path in versions.iterdir():
        if path.name not in listed:
            shutil.rmtree(path)
