"""A URL in place of a path is refused by every command, and never becomes a local directory."""

from pathlib import Path

import pytest

from ligr_jax.atomic import make_directory
from ligr_jax.cli import main
from ligr_jax.config import Config, override
from ligr_jax.errors import UsageError
from ligr_jax.places import require_local

COMMANDS = (
    "prepare s3://b/log --out out",
    "prepare log --out s3://b/out",
    "prepare log --out out --items gs://b/items.parquet",
    "world --out file:///tmp/x",
    "train --data s3://b/p --out out",
    "train --data p --out=s3:/b/out",
    "train --data p --runs s3://b/out",
    "train --data p --out out data.dir=s3://b/p",
    "train --data p --out out train.warm.run=gs://b/r",
    "train --data p --together hdfs://n/runs.json",
    "sweep s3://b/a.yaml --data p --out out",
    "sweep a.yaml --data p --out abfs://b/out",
    "eval s3://b/run",
    "eval run --data s3://b/p",
    "export run --out S3://b/out",
    "report s3://b/runs",
    "report runs --out gs:/b/page",
    "fit https://host/runs.csv",
    "fit runs.csv --register s3://b/next.json --at 1e9",
    "plan --runs s3://b/runs --flops 1e9",
    "dashboard --entity e --project p --runs s3://b/runs",
    "sid train s3://b/items.parquet --out m",
    "sid train items.parquet --out s3://b/m",
    "sid assign m p --out s3://b/ids.parquet",
    "sid inspect m p --out s3://b/page.html",
    "sid attach ids.parquet p --out s3://b/new",
    "sid vectors m.csv --out s3://b/v.parquet",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_urls(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert "not supported yet; mount the store" in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_urls_inside_files_and_configurations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="s3://b/p: object stores"):
        override(Config(), ["data.dir=s3://b/p"])
    with pytest.raises(UsageError, match="s3:/b"):
        make_directory(Path("s3://b"))  # as a library: pathlib drops a slash


def test_paths_with_colons_are_paths() -> None:
    for path in ("a:b/c", "./s3:/x", "runs/10:30/first", "/mnt/s3://x", "C:/data", "item:column"):
        require_local(path)
