"""Prepared data in a store: published whole, staged once per host, verified, also after faults."""

import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ligr_jax.cli import main
from ligr_jax.data.records import Records
from ligr_jax.data.schema import BadInput
from ligr_jax.errors import LigrError
from ligr_jax.lock import Busy, exclusive
from ligr_jax.store import stage as module
from ligr_jax.store.mirror import local_path, record_path, uri_of, with_uris
from ligr_jax.store.publish import publish_tree
from ligr_jax.store.room import hold
from ligr_jax.store.stage import stage
from ligr_jax.train.data import open_verified
from tests.store.conftest import OnHost
from tests.store.s3 import S3

DATA = "s3://b/data"


@pytest.fixture
def data(prepared: Path, s3: S3, on_host: OnHost) -> str:
    """Prepared data in the store, published by a host of their own."""
    on_host("publisher")
    shutil.copytree(prepared, local_path(DATA))
    publish_tree(local_path(DATA), "manifest.json")
    on_host("reader")
    s3.requests.clear()
    return DATA


def test_paths_of_working_copies_are_uris(on_host: OnHost, tmp_path: Path) -> None:
    for uri in ("s3://b", "s3://b/a/k=1/x.json", "gs://b/a b"):
        path = local_path(uri)
        assert uri_of(path) == uri
        assert local_path(Path(uri)) == path  # pathlib drops a slash
        assert with_uris(f"cannot read {path}: damaged") == f"cannot read {uri}: damaged"
    assert uri_of(tmp_path / "x") is None
    for wrong in ("s3://b/../x", "s3://b/x//y"):
        with pytest.raises(LigrError, match="without empty or dotted parts"):
            local_path(wrong)


def test_a_missing_library_is_named(on_host: OnHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(LigrError, match=r"pip install 'ligr-jax\[cloud\]'"):
        open_verified(DATA, ())


def test_data_are_uploaded_with_the_manifest_last_and_fetched_once(data: str, s3: S3) -> None:
    records = open_verified(data, ())
    assert uri_of(records.directory) == DATA
    shards = [s.file for s in records.manifest.shards]
    fetched = Counter(path for method, path in s3.requests if method == "GET")
    assert [fetched[f"b/data/{file}"] for file in shards] == [1] * len(shards)
    s3.requests.clear()
    again = Records(data)
    assert not [path for method, path in s3.requests if method == "GET" and "arrow" in path]
    assert (again.column("timestamp_ms") == records.column("timestamp_ms")).all()


def test_data_that_this_host_has_not_read_are_verified(data: str, s3: S3) -> None:
    assert main(["verify", data]) == 0
    s3.damage("b/data/items.arrow")
    assert main(["verify", data]) == 1


def test_the_manifest_is_the_last_object_of_an_upload(prepared: Path, s3: S3, data: str) -> None:
    put: list[str] = []
    with s3.failing(lambda method, path: put.append(path) or "" if method == "PUT" else ""):
        shutil.copytree(prepared, local_path("s3://b/second"))
        publish_tree(local_path("s3://b/second"), "manifest.json")
    assert put[-1] == "b/second/manifest.json"
    assert s3.below("b/second/") == s3.below("b/data/")


@pytest.mark.parametrize("fault", ["503", "slow", "cut", "lost"])
def test_data_are_the_same_after_faults_of_the_network(data: str, s3: S3, fault: str) -> None:
    """The first two requests of each object fail."""
    seen: Counter[str] = Counter()

    def first_two(method: str, path: str) -> str:
        seen[path] += 1
        return fault if seen[path] <= 2 else ""

    with s3.failing(first_two):
        records = open_verified(data, ())
    stored = s3.below("b/data/")
    assert max(seen.values()) > 2
    assert {n: (records.directory / n).read_bytes() for n in stored} == stored


def test_damaged_and_vanished_objects_are_named(
    data: str, s3: S3, on_host: OnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = next(name for name in s3.below("b/data/") if name.startswith("members-00001"))

    def vanish(method: str, path: str) -> str:
        if method == "GET" and "members-00000" in path:
            s3.objects.pop(path, None)
        return ""

    kept = dict(s3.objects)
    with s3.failing(vanish), pytest.raises(LigrError, match=r"s3://b/data/members-00000\S+ vanish"):
        open_verified(data, ())
    s3.objects.update(kept)
    on_host("second")
    s3.damage(f"b/data/{shard}")
    with pytest.raises(LigrError, match=rf"s3://b/data/{shard}: xxh64 \w+ of .* was written"):
        open_verified(data, ())
    assert not (local_path(data) / shard).exists()
    on_host("third")
    monkeypatch.setenv("LIGR_STORE_RETRY_S", "0.5")
    with s3.failing(lambda *_: "503"), pytest.raises(LigrError, match="check the bucket"):
        open_verified(data, ())
    with pytest.raises(BadInput, match=r"holds no manifest\.json"):
        open_verified("s3://b/nothing", ())


def test_a_full_disk_is_an_error_before_anything_is_fetched(
    data: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**28))
    with pytest.raises(LigrError, match=r"staging needs .* GB and .* name a larger disk in LIGR_C"):
        open_verified(data, ())
    assert not [path for method, path in s3.requests if method == "GET" and "arrow" in path]


def test_a_killed_transfer_continues(data: str, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that arrived before a kill are not fetched again."""
    name = next(name for name in s3.below("b/data/") if name.startswith("members-00000"))
    size = len(s3.below("b/data/")[name])
    monkeypatch.setattr(module, "_BLOCK", size // 4 + 1)
    read: list[str] = []

    def killed(uri: str, start: int, end: int, version: str) -> bytes:
        read.extend([uri] * uri.endswith(name))
        if len(read) == 3:
            raise KeyboardInterrupt
        return original(uri, start, end, version)

    original = module.read_range
    monkeypatch.setattr(module, "read_range", killed)
    with pytest.raises(KeyboardInterrupt):
        open_verified(data, ())
    monkeypatch.setattr(module, "read_range", original)
    s3.requests.clear()
    open_verified(data, ())
    again = sum(request == ("GET", f"b/data/{name}") for request in s3.requests)
    assert again == 2


def test_files_that_a_process_of_this_host_writes_are_not_replaced(data: str, s3: S3) -> None:
    open_verified(data, ())
    shard = next(iter(Records(data).manifest.shards)).file
    with exclusive(local_path(data), "is preparing data there"):
        (local_path(data) / shard).write_bytes(b"newer")
        with pytest.raises(BadInput):
            Records(data)
        with pytest.raises(Busy), exclusive(local_path(data), "is preparing data there"):
            pass
    Records(data)  # after the writer: as in the store


def test_a_full_cache_loses_what_was_not_used_for_the_longest_time(
    s3: S3, on_host: OnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in use, files that differ from the store and recently used ones are kept."""
    names = ("edited", "opened", "written", "second", "first", "third", "recent")
    for age, name in enumerate(names):
        s3.write(f"b/{name}/file", bytes(1000))
        stage(local_path(f"s3://b/{name}"))
        used = record_path("locks", local_path(f"s3://b/{name}") / ".staging")
        if name != "recent":
            hours = {"first": 9, "second": 8, "third": 7}.get(name, 20 + age)
            os.utime(used, (time.time() - 3600 * hours,) * 2)
    (local_path("s3://b/edited") / "file").write_bytes(bytes(1001))
    hold(local_path("s3://b/opened"))
    monkeypatch.setenv("LIGR_CACHE_GB", "6.5e-6")
    s3.write("b/new/file", bytes(1000))
    with exclusive(local_path("s3://b/written"), "is writing there"):
        stage(local_path("s3://b/new"))
    kept = {path.parent.name for path in local_path("s3://b").rglob("file")}
    assert kept == {*names, "new"} - {"first", "second"}
    stage(local_path("s3://b/first"))
    assert (local_path("s3://b/first") / "file").read_bytes() == bytes(1000)
    monkeypatch.setenv("LIGR_CACHE_GB", "much")
    with pytest.raises(LigrError, match="LIGR_CACHE_GB='much' is not a number of GB"):
        stage(local_path("s3://b/first"), owned=True)
