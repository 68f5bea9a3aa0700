"""What a replica tells Prometheus at /metrics. Each replica tells of itself: behind several, scrape Ray's own metrics as well."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    def __init__(self, replica: str):
        self.registry = CollectorRegistry()
        self.replica = replica
        made = {"registry": self.registry, "namespace": "sml_dist"}
        self.requests = Counter("requests", "Answers by path and HTTP status.", ["replica", "path", "status"], **made)
        self.seconds = Histogram("predict_seconds", "From a request's body to its answer.", ["replica"], buckets=SECONDS, **made)
        self.rows = Counter("rows", "Rows scored.", ["replica", "model_version"], **made)
        self.batch = Histogram("batch_rows", "Rows scored together.", ["replica"], buckets=[4**i for i in range(8)], **made)
        self.open = Gauge("open_requests", "Requests being answered.", ["replica"], **made)
        self.swaps = Gauge("swaps", "Models exchanged since the start; refused ones were not sound.", ["replica", "outcome"], **made)
        self.version = Gauge("model_info", "1 for the model in use.", ["replica", "model_version"], **made)

    def answered(self, path: str, status: int) -> None:
        self.requests.labels(self.replica, path, str(status)).inc()

    def text(self, version: str, swaps: int, refused: int) -> bytes:
        self.swaps.labels(self.replica, "done").set(swaps)
        self.swaps.labels(self.replica, "refused").set(refused)
        self.version.clear()
        self.version.labels(self.replica, version).set(1)
        return generate_latest(self.registry)
