"""What Prometheus reads at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The figures of one service. Their labels are routes, statuses and models, all of which are few.

    Attributes:
        registry: what `prometheus_client.generate_latest` takes.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        name, to = "vanilla_transformer", self.registry
        self.requests = Counter(
            "requests", "Requests that were answered.", ["route", "status"], namespace=name, registry=to
        )
        self.seconds = Histogram(
            "request_seconds", "Time of requests.", ["route"], buckets=_SECONDS, namespace=name, registry=to
        )
        self.queue = Gauge("queue_texts", "Texts that wait for the model.", ["model"], namespace=name, registry=to)
        self.streams = Gauge("streams", "Translations that are being streamed.", namespace=name, registry=to)
        self.texts = Counter("texts", "Texts that were decoded or scored.", ["model"], namespace=name, registry=to)
        self.tokens = Counter("source_tokens", "Tokens of these texts.", ["model"], namespace=name, registry=to)
        self.dropped = Counter(
            "dropped_texts", "Texts not decoded because their client left.", ["model"], namespace=name, registry=to
        )
        self.refused = Counter(
            "refused_texts", "Texts that did not fit the queue.", ["model"], namespace=name, registry=to
        )
        self.batch_texts = Histogram(
            "batch_texts", "Texts of a batch.", ["model"], buckets=_TEXTS, namespace=name, registry=to
        )
        self.batch_seconds = Histogram(
            "batch_seconds", "Time of a batch.", ["model"], buckets=_SECONDS, namespace=name, registry=to
        )


__all__ = ["Metrics"]
