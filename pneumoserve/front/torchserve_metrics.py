"""TorchServe's own metrics, which it tells on loopback alone, for whoever reads the front's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_TIMEOUT_SECONDS: Final = 1.0
_MICROSECONDS: Final = 1e-6


class TorchServeMetrics(Collector):
    """Asks TorchServe each time that it is asked; it has nothing to tell where TorchServe does not answer."""

    def __init__(self, url: str) -> None:
        self._url = url

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What requests waited in TorchServe's queues, and how many there were, by model."""
        queued = CounterMetricFamily(
            "pneumoserve_engine_queue_seconds",
            "Seconds that requests have waited in TorchServe's queue, by model.",
            labels=["model"],
        )
        requests = CounterMetricFamily(
            "pneumoserve_engine_requests", "Requests that TorchServe has taken, by model.", labels=["model"]
        )
        for name, model, value in self._read():
            if name == "ts_queue_latency_microseconds_total":
                queued.add_metric([model], value * _MICROSECONDS)
            elif name == "ts_inference_requests_total":
                requests.add_metric([model], value)
        yield queued
        yield requests

    def _read(self) -> list[tuple[str, str, float]]:
        """Name, model and value of each of its samples."""
        try:
            with urlopen(f"{self._url}/metrics", timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - a setting
                families = list(text_string_to_metric_families(answer.read().decode()))
        except (URLError, TimeoutError, ValueError):
            return []
        samples = [sample for family in families for sample in family.samples]
        return [(each.name, each.labels.get("model_name", ""), each.value) for each in samples]
