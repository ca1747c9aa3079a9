"""What of TorchServe's metrics the front passes on."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from pneumoserve.front.torchserve_metrics import TorchServeMetrics
from tests.support.prometheus import Peer

TOLD = """\
# TYPE ts_queue_latency_microseconds counter
ts_queue_latency_microseconds{model_name="pneumonia-detector",model_version="default",hostname="a",} 2500000.0
# TYPE ts_inference_requests_total counter
ts_inference_requests_total{model_name="pneumonia-detector",model_version="default",hostname="a",} 3.0
# TYPE HandlerTime gauge
HandlerTime{ModelName="pneumonia-detector",Level="Model",Hostname="a",} 12.0
"""


def test_its_queue_and_requests_are_passed_on_and_nothing_else() -> None:
    registry = CollectorRegistry()
    with Peer(TOLD).serving() as torchserve:
        registry.register(TorchServeMetrics(f"http://{torchserve.address}"))
        found = {
            (each.name, *each.labels.values()): each.value for family in registry.collect() for each in family.samples
        }
    assert found == {
        ("pneumoserve_engine_queue_seconds_total", "pneumonia-detector"): 2.5,
        ("pneumoserve_engine_requests_total", "pneumonia-detector"): 3.0,
    }


def test_a_torchserve_that_says_nothing_stops_no_scrape() -> None:
    with Peer("no metrics {").serving() as torchserve:
        silent = TorchServeMetrics(f"http://{torchserve.address}")
        assert [family.samples for family in silent.collect()] == [[], []]
    assert [family.samples for family in silent.collect()] == [[], []]
