"""What the server counts, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from twofold.model.mixed import Segment
from twofold.serve.queue import PRIORITIES, Portion, Priority

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
TOKENS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """A registry of its own, so that two servers in one process do not meet. No label is a client's words."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("twofold_requests", "Requests that were answered.", ("route", "status"), registry=self.registry)
        self.seconds = Histogram(
            "twofold_request_seconds",
            "From the request's head to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.passes = Histogram("twofold_pass_seconds", "Time of one pass through the model.", buckets=SECONDS, registry=self.registry)
        self.pass_tokens = Histogram("twofold_pass_tokens", "Tokens of one pass.", buckets=TOKENS, registry=self.registry)
        self.tokens = Counter("twofold_tokens", "Tokens that the model read, by task.", ("task",), registry=self.registry)
        self.truncated = Counter(
            "twofold_truncated", "Texts and pairs that were cut, since the model reads no more.", ("what",), registry=self.registry
        )
        self.load = Gauge("twofold_queue_tokens", "Tokens that were admitted and are not done.", ("priority",), registry=self.registry)
        self.ready = Gauge("twofold_ready", "1 while the model can be asked.", registry=self.registry)

    def saw_request(self, route: str, status: int, seconds: float) -> None:
        """One answer."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def saw_pass(self, portion: Portion, tokens: int, seconds: float) -> None:
        """One pass."""
        self.passes.observe(seconds)
        self.pass_tokens.observe(tokens)
        for ticket, place in portion:
            piece = ticket.pieces[place]
            self.tokens.labels(piece.task if isinstance(piece, Segment) else "other").inc(piece.tokens)

    def watch(self, load: Callable[[], Mapping[Priority, float]], ready: Callable[[], bool]) -> None:
        """What is looked up when somebody asks."""
        for priority in PRIORITIES:
            self.load.labels(priority).set_function(partial(_one, load, priority))
        self.ready.set_function(lambda: float(ready()))

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)


def _one(load: Callable[[], Mapping[Priority, float]], priority: Priority) -> float:
    return load().get(priority, 0.0)
