"""gs:// against the same server, by the requests that differ: conditions are generations."""

import time
from collections.abc import Callable

import pytest

from ligr_jax.lock import LOCK, exclusive
from ligr_jax.store.lease import LostLease
from ligr_jax.store.mirror import local_path
from ligr_jax.store.objects import (
    VersionChanged,
    describe_object,
    list_objects,
    read_object,
    read_range,
    remove_object,
    write_object,
)
from ligr_jax.store.publish import publish
from tests.store.conftest import OnHost
from tests.store.s3 import S3

URI = "gs://b/runs/a b"


def refused(write: Callable[[], object]) -> bool:
    try:
        write()
    except VersionChanged:
        return True
    return False


def test_an_object_is_created_once_and_replaced_if_it_is_unchanged(s3: S3) -> None:
    first = write_object(URI, b"first", "")
    assert refused(lambda: write_object(URI, b"other", ""))
    second = write_object(URI, b"second", first)
    assert refused(lambda: write_object(URI, b"other", first))
    assert refused(lambda: read_range(URI, 0, 2, first))
    assert read_range(URI, 0, 2, second) == b"se"
    content, stored = read_object(URI) or (b"", None)
    assert content == b"second"
    assert [stored] == list_objects("gs://b/runs") == [describe_object(URI)]
    large = bytes(9 * 2**20)
    write_object("gs://b/large", large)
    assert s3.objects["b/large"].content == large
    remove_object(URI)
    assert read_object(URI) is None


def test_a_lease_is_renewed_until_another_process_has_it(
    s3: S3, on_host: OnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGR_LEASE_S", "0.1")
    directory = local_path("gs://b/run")
    with exclusive(directory, "is training this run"):
        beats = {s3.objects[f"b/run/{LOCK}"].generation}
        time.sleep(0.5)
        beats.add(s3.objects[f"b/run/{LOCK}"].generation)
        assert len(beats) == 2
        file = directory / "config.json"
        file.write_text("{}")
        publish(file)
        s3.write(f"b/run/{LOCK}", b'{"owner": "another"}')
        time.sleep(0.3)
        with pytest.raises(LostLease):
            publish(file)
    assert s3.below("b/run/config") == {".json": b"{}"}
