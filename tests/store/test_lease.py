"""Leases: one owner of a directory on all hosts, taken over exactly once, fenced when lost."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

from ligr_jax.exit_status import BUSY
from ligr_jax.lock import LOCK, Busy, exclusive, is_locked
from ligr_jax.scaling.record_points import record_points
from ligr_jax.scaling.sweep import ResolvedPoint
from ligr_jax.store.lease import Lease, LostLease, acquire
from ligr_jax.store.mirror import local_path
from ligr_jax.store.publish import publish
from tests.store.conftest import OnHost
from tests.store.s3 import S3

RUN = "s3://b/run"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGR_LEASE_S", "0.2")
    monkeypatch.setenv("LIGR_LEASE_BEATS", "10")  # 2 s: the store counts whole seconds


def lock_on(on_host: OnHost, host: str) -> Path:
    on_host(host)
    return local_path(RUN) / LOCK


def suspend(lease: Lease) -> None:
    """Stop renewing, as a process that hangs does."""
    lease._ended.set()
    lease._thread.join()


def test_one_host_has_a_directory(s3: S3, on_host: OnHost) -> None:
    path = lock_on(on_host, "first")
    with exclusive(path.parent, "is training this run"):
        time.sleep(2.5)  # longer than a lease that is not renewed
        on_host("second")
        other = local_path(RUN)
        assert is_locked(other)
        with (
            pytest.raises(Busy, match=r"is training this run \(host .*, process \d+"),
            exclusive(other, "is training this run"),
        ):
            pass
        assert Busy.exit_status == BUSY
        on_host("first")
    on_host("second")
    assert not is_locked(local_path(RUN))
    with exclusive(local_path(RUN), "is training this run"):  # at once: the lease was released
        pass


def test_a_stale_lease_is_taken_over_by_one_of_many_takers(s3: S3, on_host: OnHost) -> None:
    path = lock_on(on_host, "first")
    stale, _ = acquire(path)
    assert stale is not None
    suspend(stale)
    start = threading.Barrier(4)

    def take(_: int) -> tuple[Lease | None, str]:
        start.wait()
        return acquire(path)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(take, range(4)))
    owners = [lease for lease, _ in results if lease is not None]
    assert len(owners) == 1
    assert all(words for lease, words in results if lease is None)

    with pytest.raises(LostLease, match="s3://b/run: another process has taken over") as lost:
        stale.require()
    assert lost.value.exit_status == BUSY
    owners[0].require()
    owners[0].release()


def test_a_process_that_lost_its_lease_publishes_nothing(s3: S3, on_host: OnHost) -> None:
    path = lock_on(on_host, "first")
    with exclusive(path.parent, "is training this run"):
        file = path.parent / "metrics.jsonl"
        file.write_text("1\n")
        publish(file)
        s3.write("b/run/.lock", b'{"owner": "another"}')
        file.write_text("2\n")
        time.sleep(0.5)
        with pytest.raises(LostLease, match="another process has taken over this directory"):
            publish(file)
    assert s3.below("b/run/metrics") == {".jsonl": b"1\n"}


def test_an_answer_that_is_lost_does_not_lose_the_lease(s3: S3, on_host: OnHost) -> None:
    """The request is repeated, and the store refuses it because the first attempt succeeded."""
    seen: list[str] = []

    def every_second(method: str, path: str) -> str:
        seen.extend([path] * (method == "PUT"))
        return "lost" if method == "PUT" and len(seen) % 2 else ""

    path = lock_on(on_host, "first")
    with s3.failing(every_second), exclusive(path.parent, "is training this run"):
        time.sleep(0.7)
        file = path.parent / "config.json"
        file.write_text("{}")
        publish(file)
    assert s3.below("b/run/config") == {".json": b"{}"}
    assert len(seen) > 6


class Listed(NamedTuple):
    """What `record_points` reads of a point."""

    name: str
    sweeps: tuple[str, ...] = ("ladder",)

    def to_json(self) -> dict[str, Any]:
        return {"run": self.name}


def test_runners_on_two_hosts_keep_one_list_of_points(s3: S3, on_host: OnHost) -> None:
    for host, name in (("first", "a"), ("second", "b"), ("first", "c")):
        on_host(host)
        out = local_path("s3://b/sweep")
        out.mkdir(parents=True, exist_ok=True)
        record_points([cast(ResolvedPoint, Listed(name))], out)
    points = json.loads(s3.objects["b/sweep/sweep.json"].content)["points"]
    assert [point["run"] for point in points] == ["a", "b", "c"]
