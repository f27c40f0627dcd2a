"""`ligr verify` names a file of every kind that has a digest if one of its bits is flipped."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ligr_jax.cli import main
from ligr_jax.scaling.record_points import record_points
from ligr_jax.scaling.sweep import PointSpec, plan_points
from ligr_jax.scaling.verify import verify
from ligr_jax.sid.config import SidConfig
from ligr_jax.sid.model import SidModel
from ligr_jax.tables.export import Source, export
from tests.train.runs import SMALL


@pytest.fixture
def place(prepared: Path, finished: Path, tmp_path: Path) -> Path:
    """A directory with data, a sweep of one run, exported tables and a model of semantic ids."""
    shutil.copytree(prepared, tmp_path / "data")
    shutil.copytree(finished, tmp_path / "sweep" / "run")
    points = plan_points([PointSpec(("a",), ("train.seed=1",))], prepared, SMALL)
    record_points(points, tmp_path / "sweep")
    table = jnp.asarray(np.random.default_rng(0).normal(size=(700, 4)), jnp.float32)
    for bits in (8, 32):
        export([Source("item_id", table, 700, 4)], tmp_path / f"export{bits}", bits)
    arrays = {"codebooks": np.ones((3, 4, 2), np.float32)}
    (tmp_path / "sid").mkdir()
    SidModel(SidConfig(), 2, "content", arrays).save(tmp_path / "sid")
    return tmp_path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, empty, Path.unlink])
def test_every_file_with_a_digest_is_checked(
    place: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    paths = [str(place / name) for name in ("data", "sweep", "export8", "export32", "sid")]
    assert main(["verify", *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    digested = {
        "data": ["manifest.json", *sorted(p.name for p in (place / "data").glob("*.arrow"))[:2]],
        "sweep/run": ["config.json", "summary.json"],
        "sweep": ["sweep.json"],
        "sweep/run/checkpoints/40": ["meta/metadata", "state/_METADATA", "state/manifest.ocdbt"],
        "export8": ["index.json", "item_id/zarr.json", "item_id/codes/zarr.json"],
        "export32": ["item_id/values/c/0/0"],
        "sid": ["model.npz"],
    }
    for folder, names in digested.items():
        for name in names:
            optional = damage is Path.unlink and name.endswith("json")
            if optional and "/" not in name and name != "config.json":
                continue  # what is not there is not a run's summary, or not an export
            path = place / folder / name
            content = path.read_bytes()
            damage(path)
            assert main(["verify", "--json", str(place / folder.split("/")[0])]) == 1, path
            checked = json.loads(capsys.readouterr().out)
            bad = [c for c in checked if not c["ok"]]
            assert len(bad) >= 1
            assert any(name.split("/")[-1] in c["problem"] or "item_id" in c["path"] for c in bad)
            path.write_bytes(content)
    assert main(["verify", *paths]) == 0


def test_a_place_without_digests_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert main(["verify", str(path)]) == 1
        assert f"{path}: nothing to verify; name prepared data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "index"), [("data", "manifest.json"), ("export8", "index.json")]
)
def test_an_output_that_is_replaced_during_the_check_is_named(
    place: Path, output: str, index: str
) -> None:
    results = verify(place / output)
    next(results)
    saved = (place / output / index).read_bytes()
    (place / output / index).unlink()
    (place / output / index).write_bytes(saved)
    *_, last = results
    assert last.path == str(place / output / index)
    assert last.problem.startswith("replaced by another process")
    assert not any(result.problem for result in verify(place / output))
