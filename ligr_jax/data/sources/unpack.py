"""Unpacking of a downloaded archive: complete or absent, and never outside of its directory."""

import os
import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from ligr_jax.data.schema import BadInput
from ligr_jax.errors import file_errors

_JUNK = ("__MACOSX",)  # directories that macOS adds to archives


def unpack_archive(archive: Path, directory: Path) -> None:
    """Unpack an archive into a new directory, without the one directory that contains all files.

    Args:
        archive: a .zip file or a tar file, compressed or not.
        directory: directory to create; it must not exist.

    Raises:
        BadInput: the archive is damaged, or a member or a link leaves the directory.
    """
    work = directory.with_name(f".{directory.name}.partial")
    with file_errors("write", work):
        if work.exists():  # of a process that was killed
            shutil.rmtree(work)
        work.mkdir(parents=True)
        try:
            if archive.suffix == ".zip":
                _unpack_zip(archive, work)
            else:
                _unpack_tar(archive, work)
            os.replace(_top(work), directory)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as e:
            raise BadInput(
                f"{archive}: cannot be unpacked ({e}); remove the file and download it again"
            ) from e
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _unpack_tar(archive: Path, work: Path) -> None:
    """Unpack a tar file in one pass; the filter refuses members and links that leave `work`."""
    with tarfile.open(archive, "r|*") as opened:
        opened.extractall(work, filter="data")


def _unpack_zip(archive: Path, work: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise BadInput(f"{archive}: member {name!r} is outside of the archive's directory")
        opened.extractall(work)  # a link becomes a plain file with its target as text


def _top(work: Path) -> Path:
    """Return the directory that contains all files of an archive."""
    entries = [p for p in work.iterdir() if p.name not in _JUNK]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else work
