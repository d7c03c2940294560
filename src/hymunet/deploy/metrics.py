"""What the server counts, for Prometheus. No label holds anything that a client has chosen."""

from typing import Any

from hymunet.deploy.engine import STAGES, Job

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one server, in a registry of their own.

    Args:
        waiting: A function that says how many requests wait.
        model: Names of the model, for `hymunet_model_info`.
    """

    def __init__(self, waiting: Any, model: dict[str, str]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
        from prometheus_client.platform_collector import PlatformCollector
        from prometheus_client.process_collector import ProcessCollector

        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time, open files
        PlatformCollector(registry=self.registry)

        def registered(kind: Any, name: str, text: str, **more: Any) -> Any:
            return kind(f"hymunet_{name}", text, registry=self.registry, **more)

        self._requests = registered(
            Counter, "requests", "Answers sent.", labelnames=("route", "status")
        )
        self._refusals = registered(
            Counter, "refusals", "Requests without a mask, by reason.", labelnames=("code",)
        )
        self._gone = registered(Counter, "disconnects", "Clients that did not wait.")
        self._request_s = registered(
            Histogram,
            "request_seconds",
            "From a segmentation request's first byte to its answer.",
            buckets=_SECONDS,
        )
        self._stage_s = registered(
            Histogram, "stage_seconds", "Where the time goes.", labelnames=("stage",),
            buckets=_SECONDS,
        )  # fmt: skip
        self._batch = registered(
            Histogram, "batch_pictures", "Pictures in one pass.", buckets=(1, 2, 4, 8, 16, 32)
        )
        self._body = registered(
            Histogram, "body_bytes", "Bodies received.", buckets=[10**n for n in range(3, 10)]
        )
        self.in_flight = registered(Gauge, "in_flight", "Requests begun and not yet answered.")
        registered(Gauge, "queue_waiting", "Requests that wait for the model.").set_function(
            waiting
        )
        registered(Info, "model", "The model that is served.").info(model)

    def answered(self, route: str, status: int) -> None:
        """An answer was sent; `route` is one of ours or "other"."""
        self._requests.labels(route, str(status)).inc()

    def refused(self, code: str) -> None:
        """A request got no mask."""
        self._refusals.labels(code).inc()

    def gone(self) -> None:
        """A client went away."""
        self._gone.inc()

    def segmented(self, seconds: float, body_bytes: int) -> None:
        """A request for a mask was answered by one."""
        self._request_s.observe(seconds)
        self._body.observe(body_bytes)

    def job_done(self, job: Job, batch: int) -> None:
        """The engine is through with a job; called from its thread."""
        for stage in STAGES:
            if stage in job.seconds:
                self._stage_s.labels(stage).observe(job.seconds[stage])
        self._batch.observe(batch)

    def text(self) -> bytes:
        """What Prometheus reads."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
