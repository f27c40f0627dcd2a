"""Laws of the index: it equals the arrays of the shards, and data without it can be read."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ligr_jax.data.index import INDEX, release_pages, write_data_index
from ligr_jax.data.manifest import load_manifest, save_manifest
from ligr_jax.data.packing import make_packing_plan
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput


def without_index(prepared: Path, out: Path) -> Path:
    """Copy prepared data as an earlier release wrote them."""
    shutil.copytree(prepared, out)
    for file in out.glob(INDEX):
        file.unlink()
    save_manifest(replace(load_manifest(prepared), index=()), out)
    return out


def test_the_index_equals_the_arrays_of_the_shards(prepared: Path) -> None:
    records = Records(prepared)
    assert len(records.manifest.shards) > 1
    assert isinstance(records.offsets.base, np.memmap)
    session, member = records.column("session"), np.repeat(
        np.arange(len(records.member_ids)), np.diff(records.offsets)
    )  # fmt: skip
    change = (np.diff(session) != 0) | (np.diff(member) != 0)
    ends = [0, *(1 + np.flatnonzero(change)), len(records)]
    np.testing.assert_array_equal(records.session_ends(), ends)
    lengths = [np.diff(records._open(s.file)["session"].offsets) for s in records.manifest.shards]
    np.testing.assert_array_equal(np.diff(records.offsets), np.concatenate(lengths))
    assert records.counts.sum() == len(records)


def test_data_without_an_index_are_equal_and_have_the_same_digest(
    prepared: Path, tmp_path: Path
) -> None:
    new, old = Records(prepared), Records(without_index(prepared, tmp_path / "old"))
    assert old.digest == new.digest
    assert new.manifest.index
    assert not old.manifest.index
    for name in ("offsets", "counts", "member_ids"):
        np.testing.assert_array_equal(getattr(old, name), getattr(new, name))
    a, b = (make_packing_plan(records, "train", 24) for records in (old, new))
    np.testing.assert_array_equal(a.start, b.start)
    # The index can be added in place.
    save_manifest(write_data_index(tmp_path / "old", old.manifest), tmp_path / "old")
    assert load_manifest(tmp_path / "old") == new.manifest


def test_released_pages_are_read_again(prepared: Path) -> None:
    for array in (Records(prepared).session_ends(), np.arange(5)):
        before = array.copy()
        release_pages(array)
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("damage", ["truncated", "missing", "of other data"])
def test_a_damaged_index_is_a_clear_error(prepared: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(prepared, tmp_path / "copy")
    path = tmp_path / "copy" / "index-offsets.npy"
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:-8])
    if damage == "of other data":
        np.save(path, np.arange(4))
    with pytest.raises(BadInput, match=r"index.*prepare the data again"):
        Records(tmp_path / "copy")
