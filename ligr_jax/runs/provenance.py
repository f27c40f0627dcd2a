"""Commit and versions of the code that trains a run, so that a law can be traced to code."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ligr_jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@cache
def provenance() -> dict[str, str]:
    """Return the versions of Python, of this package and of its libraries, and the commit.

    The commit is known if the package is installed from a checkout; "-dirty" marks changed files.
    """
    versions = {"python": platform.python_version(), "ligr_jax": ligr_jax.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = _commit(Path(ligr_jax.__file__).parents[1])
    return {"commit": commit, **versions} if commit else versions


def _commit(checkout: Path) -> str:
    if not (checkout / ".git").exists():
        return ""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
