"""Checkpoints: digests prove damage, and only the trainer sets a damaged step aside."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ligr_jax.data.padding import padding_batch
from ligr_jax.digests import digest_json, write_json
from ligr_jax.errors import FileError
from ligr_jax.runs import checkpoint_files
from ligr_jax.runs.checkpoint_files import (
    CheckpointError,
    DamagedCheckpoint,
    require_intact,
    save_errors,
    steps_in,
)
from ligr_jax.runs.directory import load_config, load_summary
from ligr_jax.tables.layout import Layout
from ligr_jax.train.checkpoint import Checkpoints
from ligr_jax.train.evaluate import evaluate_run
from ligr_jax.train.loop import train
from ligr_jax.train.program import Program
from ligr_jax.train.state import TrainState
from tests.train.runs import small_config

pytestmark = pytest.mark.filterwarnings(  # what orbax leaves where it gives up at a damaged array
    "ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def like(finished: Path) -> tuple[TrainState, Layout]:
    config = load_config(finished)
    program = Program(config)
    return program.abstract_state(), program.layout


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run with checkpoints 30 and 40."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def content(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def one_of_each_class(step: Path) -> list[str]:
    """One file of each class that a checkpoint holds; of data files one for each directory."""
    files = sorted(
        p.relative_to(step) for item in ("state", "meta") for p in step.glob(f"{item}/**/*")
    )
    chosen = {
        str(f.parent if f.parent.name == "d" else f): str(f) for f in files if (step / f).is_file()
    }
    return list(chosen.values())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, cut])
def test_damage_is_proved_and_set_aside_by_the_trainer_alone(
    run: Path, like: tuple[TrainState, Layout], damage: Callable[[Path], None], said: list[str]
) -> None:
    step = run / "checkpoints" / "40"
    for name in one_of_each_class(step):
        saved = (step / name).read_bytes()
        damage(step / name)
        before = content(run)
        with pytest.raises(CheckpointError) as refused:  # a reader: no other step in its place
            Checkpoints(run / "checkpoints", 2, like[1]).read(like[0])
        for words in ("checkpoint 40 is damaged", name, "--step 30", "remove", "summary.json"):
            assert words in str(refused.value)
        assert content(run) == before
        said.clear()
        restored = Checkpoints(run / "checkpoints", 2, like[1]).restore(like[0])
        assert restored is not None
        assert int(restored[0].step) == 30
        aside = run / "checkpoints" / "40.damaged"
        assert str(aside) in said[0]
        assert (aside / name).read_bytes() != saved
        aside.rename(step)
        (step / name).write_bytes(saved)


def test_a_file_that_is_missing_proves_nothing(run: Path, like: tuple[TrainState, Layout]) -> None:
    """A network disk may return it in a moment: the step is not moved."""
    step = run / "checkpoints" / "40"
    checkpoints = Checkpoints(run / "checkpoints", 2, like[1])
    for name in one_of_each_class(step):
        saved = (step / name).read_bytes()
        (step / name).unlink()
        before = content(run)
        for restore in (checkpoints.read, checkpoints.restore):
            with pytest.raises(CheckpointError, match=f"checkpoint 40 cannot be read.*{name}"):
                restore(like[0])
        assert content(run) == before
        (step / name).write_bytes(saved)
    assert checkpoints.read(like[0]) is not None


def test_a_checkpoint_without_digests_of_its_files_is_checked_by_those_of_its_leaves(
    run: Path, like: tuple[TrainState, Layout]
) -> None:
    """As earlier releases saved them."""
    step = run / "checkpoints" / "40"
    (step / "digests.json").unlink()
    checkpoints = Checkpoints(run / "checkpoints", 2, like[1])
    assert checkpoints.read(like[0]) is not None
    for data in (step / "state" / "ocdbt.process_0" / "d").iterdir():
        # Everywhere: some bytes of these files belong to no array.
        data.write_bytes(bytes(b ^ (i % 97 == 0) for i, b in enumerate(data.read_bytes())))
    with pytest.raises(CheckpointError, match="checkpoint 40 is damaged"):
        checkpoints.read(like[0])


def test_sealed_files_are_all_that_a_step_needs(run: Path) -> None:
    for step in ("30", "40"):
        require_intact(run / "checkpoints" / step)
    saved = json.loads((run / "checkpoints" / "40" / "digests.json").read_text())["files"]
    assert {"meta/metadata", "state/manifest.ocdbt", "state/_METADATA"} <= set(saved)
    flip(run / "checkpoints" / "40" / "state" / "_METADATA")
    with pytest.raises(DamagedCheckpoint, match=r"_METADATA has xxh64 \w+, not \w+"):
        require_intact(run / "checkpoints" / "40")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("width", 16, r"leaf .*\[.*\] in the checkpoint and float32 \[.*\] by the configuration"),
        ("table_width", 8, r"table actor_id is \[\d+, 4\] in the checkpoint and \[\d+, 8\]"),
        ("depth", 3, r"leaf .* is float32 \[1, .*\] in the checkpoint and float32 \[3, "),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_and_kept(
    run: Path, name: str, value: int, words: str
) -> None:
    config = json.loads((run / "config.json").read_text())
    config.pop("digest", None)
    config["model"][name] = value
    (run / "config.json").write_text(json.dumps(config))
    before = content(run)
    with pytest.raises(CheckpointError, match=words):
        evaluate_run(run, "test")
    assert content(run) == before


def change_description(step: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a checkpoint says of itself, as another release would have written it."""
    path = step / "meta" / "metadata"
    described = json.loads(path.read_text())
    del described["digest"]
    change(described)
    path.write_text(json.dumps({**described, "digest": digest_json(described)}))
    (step / "digests.json").unlink(missing_ok=True)


def test_a_checkpoint_of_a_newer_format_is_refused_and_kept(
    run: Path, like: tuple[TrainState, Layout]
) -> None:
    change_description(run / "checkpoints" / "40", lambda d: d.update(version=3))
    before = content(run)
    checkpoints = Checkpoints(run / "checkpoints", 2, like[1])
    for restore in (checkpoints.read, checkpoints.restore):
        with pytest.raises(CheckpointError, match=r"40 has format version 3, .* reads 1 to 2; "):
            restore(like[0])
    assert content(run) == before


def test_a_checkpoint_of_an_earlier_format_is_read(prepared: Path, tmp_path: Path) -> None:
    """It has no version, and the placements of its tables have their earlier names."""
    placement = "mesh.placement=table_wise,item_id:column_wise,actor_id:row_wise"
    mesh = ("mesh.data=1", "mesh.model=2", placement)
    program = Program(small_config(prepared, *mesh))
    batch = padding_batch(program.config.model, 1, program.config.data.seq_len // 2)
    state = program.init_state(batch)
    checkpoints = Checkpoints(tmp_path, 2, program.layout)
    checkpoints.save(7, state, {})
    checkpoints.close()

    def earlier(described: dict[str, Any]) -> None:
        assert described.pop("version") == 2
        placements = described["tables"]["placements"]
        assert set(placements.values()) == {"column_wise", "row_wise", "table_wise"}
        placements.update({t: p.removesuffix("_wise") for t, p in placements.items()})

    change_description(tmp_path / "7", earlier)
    read = Checkpoints(tmp_path, 2, program.layout).read(program.abstract_state())
    assert read is not None
    for saved, there in zip(jax.tree.leaves(state), jax.tree.leaves(read[0]), strict=True):
        np.testing.assert_array_equal(saved, there)


def test_a_full_disk_is_named_and_a_rerun_ends_with_the_same_numbers(
    prepared: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the last file of step 20 is written, in a thread of orbax."""
    config, out = small_config(prepared), tmp_path / "run"

    def disk_full_at_20(path: Path, content: dict[str, Any]) -> None:
        if path.parent.name.startswith("20"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_json(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "write_json", disk_full_at_20)
        with pytest.raises(
            FileError, match=rf"cannot \w+ {out}/checkpoints/20.*: no space is left"
        ):
            train(config, out)
    assert steps_in(out / "checkpoints") == [10]
    require_intact(out / "checkpoints" / "10")
    again = train(config, out)
    assert steps_in(out / "checkpoints") == [40, 30]
    first = load_summary(finished)
    assert first is not None
    for name in ("test/ne", "validation/click/auc", "tokens"):
        assert again[name] == first[name]


def test_the_operating_systems_errors_in_tensorstores_text_are_put_in_words(tmp_path: Path) -> None:
    text = "RESOURCE_EXHAUSTED: Failed to write 30289 bytes to file 9: x [os_error_code='28']"
    place, words = tmp_path / "7", f"cannot write {tmp_path}/7: no space is left"
    with pytest.raises(FileError, match=words), save_errors(place):
        raise ValueError(text)
    with pytest.raises(ValueError, match=r"^shapes differ$"), save_errors(place):
        raise ValueError("shapes differ")


def test_an_older_step_is_measured_where_it_is_asked_for(run: Path) -> None:
    before = content(run)
    assert evaluate_run(run, "test", step=30)["test/ne"] != evaluate_run(run, "test")["test/ne"]
    with pytest.raises(CheckpointError, match=r"no checkpoint 35; it has \[30, 40\]"):
        evaluate_run(run, "test", step=35)
    assert content(run) == before


def test_a_save_of_small_replicated_arrays_compiles_nothing(
    like: tuple[TrainState, Layout], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Replicas would share the writing by slices, and each slice would be a program."""
    mesh = jax.make_mesh((8,), ("data",))
    everywhere = jax.NamedSharding(mesh, jax.P())
    state = {str(n): jax.device_put(np.zeros((n, 8)), everywhere) for n in (1016, 1024)}
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2, like[1])
    jax.config.update("jax_log_compiles", True)
    try:
        checkpoints.save(1, state, {})
        checkpoints.wait()
    finally:
        jax.config.update("jax_log_compiles", False)
        checkpoints.close()
    assert steps_in(tmp_path / "checkpoints") == [1]
    assert "Compiling" not in caplog.text
