"""What Prometheus reads from the server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
IMAGE_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """The counters of a server.

    Attributes:
        requests: Answers by route, method and status.
        request_seconds: Seconds from a request to the end of its answer, by route.
        image_seconds: Seconds that generating an image took.
        cancelled: Requests whose client left before its image was finished.
        refused: Requests that found the queue full.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "edgepress_requests", "Answers.", ["route", "method", "status"], registry=self._registry
        )
        self.request_seconds = Histogram(
            "edgepress_request_seconds",
            "Seconds of a request.",
            ["route"],
            buckets=IMAGE_SECONDS,
            registry=self._registry,
        )
        self.image_seconds = Histogram(
            "edgepress_image_seconds", "Seconds of an image.", buckets=IMAGE_SECONDS, registry=self._registry
        )
        self.cancelled = Counter("edgepress_cancelled", "Requests whose client left.", registry=self._registry)
        self.refused = Counter("edgepress_refused", "Requests that found the queue full.", registry=self._registry)

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Adds a value that is read when Prometheus asks.

        Args:
            name: Name of the value.
            description: What it is.
            read: Returns the value.
        """
        Gauge(f"edgepress_{name}", description, registry=self._registry).set_function(read)

    def render(self) -> bytes:
        """The values in Prometheus' text format."""
        content: bytes = generate_latest(self._registry)
        return content
