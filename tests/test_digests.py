"""A JSON file with a digest: whatever is wrong with it, the message names file, damage, remedy."""

import json
import os
from pathlib import Path

import pytest

from ligr_jax import atomic
from ligr_jax.digests import DamagedFile, read_json, write_json


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"", "is empty"),
        (b"\0\0\0", "is empty"),
        (b'{"a": 1', "not JSON"),
        (b"[1, 2]", "a JSON list, not an object"),
        (b"7", "a JSON number"),
        (b"null", "a JSON null"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(
    tmp_path: Path, content: bytes, damage: str
) -> None:
    path = tmp_path / "summary.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=f"{path}.*{damage}.*; remove it"):
        read_json(path, "remove it")


def test_a_changed_value_is_noticed_and_a_file_without_digest_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    content = {"ne": 0.1 + 0.2, "splits": ("test",), "none": None, "n": 2**60, "name": "é"}
    write_json(path, content)
    plain = json.loads(json.dumps(content))
    assert read_json(path, "") == plain
    path.write_text(path.read_text().replace("0.30000000000000004", "0.2"))
    with pytest.raises(DamagedFile, match="values have changed since the file was written"):
        read_json(path, "")
    path.write_text(json.dumps(plain))
    assert read_json(path, "") == plain


def test_a_file_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda _: done.append("fsync"))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), replace(a, b)))
    atomic.write_atomically(tmp_path / "x", "é")
    assert done == ["fsync", "rename", "fsync"]
    assert (tmp_path / "x").read_bytes() == "é".encode()
