"""What the service counts and measures, in the names of Prometheus: base units, few labels."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """The numbers of one service; each has a registry of its own, so that two may live in one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        tower, route = ["tower"], ["route", "code"]
        self.requests = Counter("siglip_requests_total", "Requests answered", route, registry=registry)
        self.request_seconds = Histogram("siglip_request_seconds", "Time to answer", ["route"], registry=registry)
        self.rejections = Counter("siglip_rejections_total", "Requests refused", ["reason"], registry=registry)
        self.queue_length = Gauge("siglip_queue_length", "Items taken on and not answered", tower, registry=registry)
        self.pixels = Gauge("siglip_pixels_taken_on", "Pixels of pictures not answered", registry=registry)
        self.library_pictures = Gauge("siglip_library_pictures", "Pictures that can be found", registry=registry)
        self.wait_seconds = Histogram("siglip_queue_wait_seconds", "Time in the queue", tower, registry=registry)
        self.tower_seconds = Histogram("siglip_tower_seconds", "Time of one batch", tower, registry=registry)
        self.batch_size = Histogram(
            "siglip_batch_size",
            "Items of one batch",
            tower,
            registry=registry,
            buckets=[2**power for power in range(9)],
        )

    def text(self) -> bytes:
        """What Prometheus reads."""
        return generate_latest(self._registry)
