"""The distributions: the sdist has the project, and the wheel built from it runs every command."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import ligr_jax
from ligr_jax.cli import COMMANDS

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"
OUTSIDE = """
import sys
sys.path.insert(0, sys.argv[1])
import ligr_jax
assert ligr_jax.__file__.startswith(sys.argv[1]), ligr_jax.__file__
from ligr_jax.cli import main
for command in sys.argv[2:]:
    try:
        status = main([command, "--help"])
    except SystemExit as stop:
        status = stop.code
    assert status == 0, (command, status)
try:
    main(["sweep", "--list"])
except SystemExit as stop:
    assert stop.code == 0
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from the files of an sdist alone."""
    out = tmp_path_factory.mktemp("distributions")
    source = out / "source"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "runs", "wandb", "data", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=lambda d, n: ignored(d, n) if Path(d) == ROOT else [])
    build("build_sdist", source, out)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    (extracted,) = out.glob("ligr_jax-*/")
    for path in ("sweeps/tiny/ladder.yaml", "tests/test_wheel.py", "docs/index.md", "LICENSE"):
        assert (extracted / path).read_bytes() == (ROOT / path).read_bytes()
    build("build_wheel", extracted, out)
    (wheel,) = out.glob("*.whl")
    return wheel


def build(what: str, source: Path, out: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", BUILD, what, str(out)], cwd=source, check=True, capture_output=True
    )


def test_the_wheel_has_all_files_of_the_package_and_no_others(wheel: Path) -> None:
    assert wheel.name == f"ligr_jax-{ligr_jax.__version__}-py3-none-any.whl"
    package = ROOT / "ligr_jax"
    wanted = {
        p.relative_to(ROOT).as_posix()
        for p in package.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = {n for n in names if ".dist-info/" in n}
        (entry,) = (n for n in metadata if n.endswith("entry_points.txt"))
        assert "ligr = ligr_jax.__main__:main" in archive.read(entry).decode()
    assert names - metadata == wanted


def test_the_wheel_runs_every_command_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    command = [sys.executable, "-I", "-c", OUTSIDE, str(tmp_path / "site"), *COMMANDS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"usage: ligr {command} " in done.stdout
    assert "tiny/ladder " in done.stdout
