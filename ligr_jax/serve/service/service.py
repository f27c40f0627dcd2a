"""The service without HTTP: requests in, results out, in batches, from the current version."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ligr_jax.data.schema import BadInput
from ligr_jax.serve.activity import ActivityStore, Appended
from ligr_jax.serve.artifact import Artifact
from ligr_jax.serve.manifest import ArtifactError
from ligr_jax.serve.service.batcher import Batcher
from ligr_jax.serve.service.bodies import RawRequest
from ligr_jax.serve.service.engine import Engine, Result
from ligr_jax.serve.service.metrics import Metrics
from ligr_jax.serve.service.requests import Request, parse_request
from ligr_jax.serve.service.versions import ServedVersion
from ligr_jax.serve.service.warm_up import compile_programs


@dataclass(frozen=True)
class ServiceOptions:
    """Options of a service.

    Attributes:
        largest_batch: largest number of requests that are scored together.
        wait_ms: time that a request waits for others, in milliseconds.
        most_waiting: largest number of waiting requests; further ones are refused.
        timeout_ms: longest time that a request waits, in milliseconds.
        cache_mb: largest size of all encoded histories, in MiB.
        poll_s: time between two looks for a new version, in seconds; 0: never.
        warm_up: numbers of candidates for which programs are compiled before a version is served.
    """

    largest_batch: int = 8
    wait_ms: float = 2.0
    most_waiting: int = 256
    timeout_ms: float = 1000.0
    cache_mb: float = 1024.0
    poll_s: float = 1.0
    warm_up: tuple[int, ...] = ()


class Service:
    """Scores candidates of members with the current version of an artifact.

    Attributes:
        store: histories of members.
        metrics: counters and times.
        versions: the version that is served.
    """

    def __init__(self, artifact: Path, store: Path, options: ServiceOptions) -> None:
        """
        Args:
            artifact: directory or URI that `ligr export` wrote.
            store: directory that `ligr store build` wrote from the data of the run.
            options: options.

        Raises:
            LigrError: the artifact or the store cannot be used, or was made from other data.
        """
        self._options = options
        self.metrics = Metrics()
        self.store = ActivityStore(store)
        self._engine = Engine(self.store, int(options.cache_mb * 2**20))
        self.versions = ServedVersion(artifact, self._prepare, options.poll_s)
        self._batcher = Batcher[Request, Result](
            self._answer,
            largest=options.largest_batch,
            wait_s=options.wait_ms / 1e3,
            most_waiting=options.most_waiting,
            timeout_s=options.timeout_ms / 1e3,
        )
        self.metrics.watch(
            waiting=lambda: len(self._batcher),
            cached_histories=lambda: len(self._engine.histories),
            cached_bytes=lambda: self._engine.histories.bytes,
        )

    @property
    def artifact(self) -> Artifact:
        """The version that is served."""
        return self.versions.artifact

    def submit(self, raw: Sequence[RawRequest]) -> "list[Future[Result]]":
        """Parse requests, and add all of them to those that wait.

        Raises:
            BadInput: a row is not valid; no request is added.
            Overloaded: too many requests wait.
        """
        if not raw:
            raise BadInput("there is no request; give at least one")
        artifact = self.artifact
        most = artifact.most_candidates
        parsed = [parse_request(self.store, *r, most=most, model=artifact.model) for r in raw]
        futures = []
        for request in parsed:
            impressions = self._impressions(request)
            sizes = (
                artifact.scoring.bucket(min(impressions, artifact.capacity)),
                artifact.scoring.bucket(len(request.candidates)),
            )
            futures.append(self._batcher.submit(sizes, request))
        return futures

    def append(self, rows: Any) -> Appended:
        """Add impressions to the store; later requests see them.

        Raises:
            BadInput: a row is not valid; nothing is added.
        """
        return self.store.append(rows)

    def close(self) -> None:
        """Refuse new requests, answer the waiting ones, and close the files."""
        self._batcher.close()
        self.versions.close()
        self.store.close()

    def _impressions(self, request: Request) -> int:
        """Return the length of the history of a request."""
        if request.history is not None:
            return len(request.history)
        assert request.member is not None  # `parse_request`
        return self.store.count(request.member)

    def _answer(self, requests: Sequence[Request]) -> list[Result]:
        artifact = self.artifact
        begin, before = time.perf_counter(), self._engine.lookups.copy()
        results = self._engine.answer(artifact, artifact.directory.name, requests)
        found = self._engine.lookups - before
        self.metrics.observe_batch(len(requests), time.perf_counter() - begin, found)
        return results

    def _prepare(self, artifact: Artifact) -> None:
        """Refuse a version of other data, and compile the programs of the warm-up."""
        if artifact.manifest.data_digest != self.store.about.data_digest:
            raise ArtifactError(
                f"{artifact.directory} was trained on data with digest "
                f"{artifact.manifest.data_digest}, and {self.store.directory} was built from "
                f"{self.store.about.data_digest}; build a store from the data of the run"
            )
        compile_programs(artifact, self._options.warm_up, self._options.largest_batch)
        self.metrics.set_version(artifact.directory.name, artifact.manifest.expires)
