"""A URL of an unsupported kind is refused by every command, and never becomes a local directory."""

from pathlib import Path

import pytest

from ligr_jax.atomic import make_directory
from ligr_jax.cli import main
from ligr_jax.config import Config, override
from ligr_jax.errors import UsageError
from ligr_jax.places import require_local

COMMANDS = (
    "prepare http://b/log --out out",
    "prepare log --out az://b/out",
    "prepare log --out out --items abfs://b/items.parquet",
    "world --out file:///tmp/x",
    "train --data hdfs://b/p --out out",
    "train --data p --out=az:/b/out",
    "train --data p --runs r2://b/out",
    "train --data p --out out data.dir=az://b/p",
    "train --data p --out out train.warm.run=az://b/r",
    "train --data p --together hdfs://n/runs.json",
    "sweep https://b/a.yaml --data p --out out",
    "sweep a.yaml --data p --out abfs://b/out",
    "eval az://b/run",
    "eval run --data az://b/p",
    "export run --out AZ://b/out",
    "report az://b/runs",
    "report runs --out az:/b/page",
    "fit https://host/runs.csv",
    "fit runs.csv --register az://b/next.json --at 1e9",
    "plan --runs az://b/runs --flops 1e9",
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
    assert "URLs are not supported here; s3:// and gs:// are supported for" in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_urls_inside_files_and_configurations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="az://b/p: URLs"):
        override(Config(), ["data.dir=az://b/p"])
    with pytest.raises(UsageError, match="s3:/b"):
        make_directory(Path("s3://b"))  # as a library: pathlib drops a slash


def test_paths_with_colons_are_paths() -> None:
    for path in ("a:b/c", "./s3:/x", "runs/10:30/first", "/mnt/s3://x", "C:/data", "item:column"):
        require_local(path)
