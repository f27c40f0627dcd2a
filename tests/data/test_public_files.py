"""Public data sets, as people have them, are read with options alone."""

import argparse
import shlex
from pathlib import Path

import pytest

from ligr_jax.commands import prepare as command
from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.schema import BadInput
from tests.data.logs import read_rows
from tests.data.public_files import PUBLIC_FILES, REFUSED, write


def run(path: Path, out: Path, options: str) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    fixed = [str(path), "--out", str(out), "--fractions", "1,0,0", "--format", "table"]
    command.run(parser.parse_args([*fixed, *shlex.split(options)]))


@pytest.mark.parametrize("name", PUBLIC_FILES)
def test_a_public_file_is_read_with_options_alone(tmp_path: Path, name: str) -> None:
    file = PUBLIC_FILES[name]
    run(write(tmp_path / file.name, file.content), tmp_path / "out", file.options)
    manifest = load_manifest(tmp_path / "out")
    rows = [row for s in manifest.shards for row in read_rows(tmp_path / "out" / s.file)]
    assert manifest.counts["impressions"] == file.rows
    assert manifest.counts["members"] == file.members
    positives = {a: sum(v == 1 for r in rows for v in r[a]) for a in manifest.actions}
    assert positives == file.positives
    first = min(rows, key=lambda r: r["timestamp_ms"][0])
    assert first["timestamp_ms"][0] == file.first_ms
    assert {n: first[n][0] for n in file.features} == file.features


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_without_members_or_times_is_refused(tmp_path: Path, name: str) -> None:
    file, content, options, message = REFUSED[name]
    with pytest.raises(BadInput, match=message):
        run(write(tmp_path / file, content), tmp_path / "out", options)
