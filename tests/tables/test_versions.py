"""Versions of an artifact: a crash at any point leaves a complete current version."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ligr_jax.digests import DamagedFile
from ligr_jax.errors import LigrError
from ligr_jax.lock import Busy
from ligr_jax.tables import versions
from ligr_jax.tables.export import Source, write_tables
from ligr_jax.tables.exported import ExportedTable
from ligr_jax.tables.versions import (
    VersionError,
    listed_versions,
    make_current,
    publish_version,
    version_directory,
    writing_version,
)
from ligr_jax.tables.zarr import ReplacedExport, start


def add(directory: Path, name: str, keep: int = 3) -> list[str]:
    with writing_version(directory) as new:
        (new / "part").mkdir()
        (new / "part" / "values").write_text(name)
        (new / "index").write_text(name)
        return publish_version(directory, name, "index", keep)


def content(directory: Path) -> str:
    version = version_directory(directory)
    assert (version / "index").read_text() == (version / "part" / "values").read_text()
    return (version / "index").read_text()


def test_the_newest_versions_are_kept_and_the_newest_is_current(tmp_path: Path) -> None:
    assert listed_versions(tmp_path) == []
    with pytest.raises(VersionError, match=r"it has no current\.json; write one with `ligr export"):
        version_directory(tmp_path)
    for number in range(5):
        add(tmp_path, f"v{number}")
        assert content(tmp_path) == f"v{number}"
    assert listed_versions(tmp_path) == ["v4", "v3", "v2"]
    assert sorted(os.listdir(tmp_path / "versions")) == ["v2", "v3", "v4"]
    assert version_directory(tmp_path, "v2").is_dir()
    with pytest.raises(VersionError, match="no version 'v1'; it has v4, v3, v2"):
        version_directory(tmp_path, "v1")
    with pytest.raises(VersionError, match="keep=2"):
        add(tmp_path, "v5", keep=2)
    assert content(tmp_path) == "v4"
    # An older version becomes the current one again, and no version is lost.
    make_current(tmp_path, "v3")
    assert content(tmp_path) == "v3"
    assert listed_versions(tmp_path) == ["v3", "v4", "v2"]
    with pytest.raises(VersionError, match="no version 'v1'"):
        make_current(tmp_path, "v1")
    assert add(tmp_path, "v6", keep=4) == ["v6", "v3", "v4", "v2"]


def test_a_reader_keeps_its_version_until_it_is_removed(tmp_path: Path) -> None:
    """Rows are those of the version that was opened, or an error; never those of another one."""

    def export(number: int) -> None:
        with writing_version(tmp_path) as new:
            start(new / "tables", overwrite=False)
            table = np.full((600, 4), number, np.float32)
            write_tables([Source("t", table, 600, 4)], new / "tables", 8)
            (new / "index").touch()
            publish_version(tmp_path, f"v{number}", "index")

    export(0)
    first = ExportedTable.open(tmp_path, "t")
    for number in (1, 2):
        export(number)
        assert (first.rows([7]) == 0).all()
        assert (ExportedTable.open(tmp_path, "t").rows([7]) == number).all()
    export(3)
    with pytest.raises(ReplacedExport, match="open it again"):
        first.rows([7])


def failing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Raise in the operation of a number, counted over all that change names or the disk."""
    calls = iter(range(10**6))

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == number:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(versions, "sync", counted(versions.sync))
    monkeypatch.setattr(versions, "write_json", counted(versions.write_json))
    for module, name in ((os, "rename"), (os, "replace"), (shutil, "rmtree")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))


def test_a_crash_at_any_point_leaves_a_complete_version_current(tmp_path: Path) -> None:
    for name in ("v0", "v1", "v2"):
        add(tmp_path, name)
    seen = set()
    for number in range(100):
        attempt = tmp_path.parent / f"attempt{number}"
        shutil.copytree(tmp_path, attempt)
        with pytest.MonkeyPatch.context() as patch:
            failing(patch, number)
            try:
                add(attempt, "v3")
            except KeyboardInterrupt:
                finished = False
            else:
                finished = True
        current = content(attempt)
        seen.add(current)
        assert set(listed_versions(attempt)) <= set(os.listdir(attempt / "versions"))
        if finished:
            break
        # The next export cleans up what the crash left.
        add(attempt, "v4")
        assert content(attempt) == "v4"
        assert sorted(os.listdir(attempt / "versions")) == sorted(listed_versions(attempt))
    assert finished
    assert number > 6
    assert seen == {"v2", "v3"}


def test_one_export_at_a_time_and_foreign_files_are_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with writing_version(out), pytest.raises(Busy, match="another process is exporting there"):
        add(out, "v0")
    add(out, "v0")
    (tmp_path / "thesis").mkdir()
    with pytest.raises(LigrError, match=r"holds other files \(out, thesis\)"):
        add(tmp_path, "v0")
    assert sorted(os.listdir(tmp_path)) == ["out", "thesis"]


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[str], None]:
    add(tmp_path, "v0")

    def write(text: str) -> None:
        (tmp_path / "current.json").write_text(text)

    return write


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"version": "../v0"}', '{"version": ".new"}', '{"version": 3}', '{"versions": []}'],
)
def test_a_damaged_current_json_is_named(
    damaged: Callable[[str], None], tmp_path: Path, text: str
) -> None:
    damaged(text)
    with pytest.raises((VersionError, DamagedFile), match=r"current\.json.* export again"):
        version_directory(tmp_path)


def test_a_changed_name_is_detected(damaged: Callable[[str], None], tmp_path: Path) -> None:
    saved = json.loads((tmp_path / "current.json").read_text())
    damaged(json.dumps({**saved, "version": "v9"}))
    with pytest.raises(DamagedFile, match="values have changed"):
        version_directory(tmp_path)
