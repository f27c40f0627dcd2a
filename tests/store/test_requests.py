"""Requests of a runner: one listing at each look, whatever the number of points."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from ligr_jax.lock import exclusive
from ligr_jax.runs.directory import add_failure, count_failures, save_summary
from ligr_jax.scaling.runner import _Scheduler
from ligr_jax.scaling.sweep import Point
from ligr_jax.store.mirror import local_path
from tests.store import s3 as server
from tests.store.conftest import OnHost
from tests.store.s3 import S3
from tests.train.runs import small_config

OUT = "s3://b/sweep"
POINTS = 200


def test_a_look_at_a_sweep_takes_a_listing_and_a_request_per_point_in_training(
    prepared: Path, s3: S3, on_host: OnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PAGE", 1000)  # as in S3
    config = small_config(prepared)
    cost = SimpleNamespace(seconds=1.0, steps=1)
    points = [
        SimpleNamespace(name=f"run-{k}", config=config, cost=cost, assignments=(), sweeps=())
        for k in range(POINTS)
    ]
    on_host("other")
    finished = local_path(f"{OUT}/run-0")
    finished.mkdir(parents=True)
    save_summary(finished, {"status": "finished"})
    failed = local_path(f"{OUT}/run-1")
    failed.mkdir()
    for _ in range(2):
        add_failure(failed, "out of memory")
    with exclusive(local_path(f"{OUT}/run-2"), "is training this run"):
        on_host("runner")
        out = local_path(OUT)
        out.mkdir(parents=True)
        scheduler = _Scheduler(cast(list[Point], points), prepared, out, together=1, retries=1)
        s3.requests.clear()
        taken = [scheduler._take()[0][0].name for _ in range(3)]
    assert taken == ["run-3", "run-4", "run-5"]
    assert count_failures(out / "run-1") == 2
    fetched = 4  # summary and failures of the other host, a HEAD and a GET each at most
    assert len(s3.requests) <= 3 * 3 + fetched, s3.requests
