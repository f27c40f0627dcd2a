"""Metrics of the service in the format of Prometheus."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 1.0, 2.0)


class Metrics:
    """Counters and times since the start of the service."""

    def __init__(self) -> None:
        self._registry = r = CollectorRegistry()
        self.requests = Counter(
            "ligr_requests", "HTTP requests by path and status", ["path", "status"], registry=r
        )
        self.seconds = Histogram(
            "ligr_request_seconds",
            "Time of an HTTP request",
            ["path"],
            buckets=_SECONDS,
            registry=r,
        )
        self._batch = Histogram(
            "ligr_batch_requests", "Requests of a batch", buckets=(1, 2, 4, 8, 16, 32), registry=r
        )
        self._scoring = Histogram(
            "ligr_batch_seconds", "Time to score a batch", buckets=_SECONDS, registry=r
        )
        self._lookups = Counter(
            "ligr_histories", "Histories of members, by how they were found", ["found"], registry=r
        )
        self._version = Gauge(
            "ligr_version", "1 for the version that is served", ["version", "expires"], registry=r
        )

    def watch(self, **gauges: Callable[[], float]) -> None:
        """Add gauges whose values are read when metrics are collected."""
        words = {
            "waiting": "Requests that wait",
            "cached_histories": "Encoded histories in memory",
            "cached_bytes": "Bytes of encoded histories",
        }
        for name, value in gauges.items():
            Gauge(f"ligr_{name}", words[name], registry=self._registry).set_function(value)

    def observe_batch(self, requests: int, seconds: float, lookups: Mapping[str, int]) -> None:
        """Add a batch; `lookups` is how its histories were found."""
        self._batch.observe(requests)
        self._scoring.observe(seconds)
        for found, count in lookups.items():
            self._lookups.labels(found).inc(count)

    def set_version(self, version: str, expires: str) -> None:
        """Report the version that is served."""
        self._version.clear()
        self._version.labels(version, expires).set(1)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
