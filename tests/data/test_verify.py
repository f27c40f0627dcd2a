"""Runs refuse prepared data that differ from what `ligr prepare` wrote."""

import shutil
from pathlib import Path

import pytest

from ligr_jax.data.manifest import load_manifest
from ligr_jax.data.verify import DamagedData, require_undamaged
from ligr_jax.errors import FileError
from ligr_jax.scaling.runner import run_sweep
from ligr_jax.scaling.sweep import PointSpec, plan_points
from ligr_jax.train.evaluate import evaluate_run
from ligr_jax.train.loop import train
from ligr_jax.train.vmapped import train_vmapped
from tests.train.runs import SMALL, small_config


@pytest.fixture
def data(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared, tmp_path / "data")
    return tmp_path / "data"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_every_damaged_file_is_named_with_both_digests(data: Path) -> None:
    manifest = load_manifest(data)
    require_undamaged(data, manifest)
    first, second = (data / shard.file for shard in manifest.shards[:2])
    flip(first)
    second.write_bytes(second.read_bytes()[:-8])
    with pytest.raises(DamagedData) as refused:
        require_undamaged(data, manifest)
    words = str(refused.value)
    for path, shard in zip((first, second), manifest.shards):
        assert f"{path}: xxh64 " in words
        assert f"the manifest has {shard.xxh64}" in words
    assert "restore them from a copy, or prepare the data again" in words
    second.unlink()
    with pytest.raises(FileError, match=second.name):
        require_undamaged(data, manifest)


def test_damaged_data_are_refused_before_anything_is_trained_or_measured(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    flip(next(data.glob("members-*")))
    config = small_config(data)
    points = plan_points([PointSpec(("a",), ("train.seed=1",))], data, SMALL)
    for start in (
        lambda: train(config, tmp_path / "run"),
        lambda: train_vmapped([config], [tmp_path / "group"]),
        lambda: evaluate_run(finished, "test", data),
        lambda: run_sweep(points, data, tmp_path / "sweep", 1),
    ):
        with pytest.raises(DamagedData, match="differ from what `ligr prepare` wrote"):
            start()
    assert not (tmp_path / "sweep" / points[0].name).exists()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
