"""What the service counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4"
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one service, which share no registry with another's.

    Attributes:
        requests: by path and status.
        seconds: by stage: read, decode, queue, network, encode.
        waiting: images that wait for the network or are in it.
        together: images that the network saw at once.
        restarts: of the network's process.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "renet_requests", "Requests answered.", ["method", "path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "renet_stage_seconds", "Seconds by stage.", ["stage"], registry=self._registry, buckets=_BOUNDS
        )
        self.waiting = Gauge("renet_images_waiting", "Images that wait or are predicted.", registry=self._registry)
        self.restarts = Counter("renet_network_restarts", "Restarts of the network's process.", registry=self._registry)
        self.together = Histogram(
            "renet_images_together", "Images predicted at once.", registry=self._registry, buckets=(1, 2, 4, 8, 16)
        )
        ProcessCollector(registry=self._registry)

    @contextmanager
    def stage(self, name: str, note: Callable[[str, float], object] = lambda *_: None) -> Iterator[None]:
        """Time a stage; `note` gets its name and seconds, too."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.seconds.labels(name).observe(seconds)
        note(name, seconds)

    def text(self) -> bytes:
        """Write all of it in Prometheus's text form."""
        return generate_latest(self._registry)
