"""The operator's metrics, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """What is counted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leading = Gauge(
            "numavm_operator_leading", "1 while this operator leads.", registry=self.registry
        )
        self.queue_depth = Gauge(
            "numavm_operator_queue_depth", "NumaVMs waiting for a worker.", registry=self.registry
        )
        self.pending = Gauge(
            "numavm_operator_pending", "NumaVMs waiting for a claim.", registry=self.registry
        )
        self.placements = Counter(
            "numavm_operator_placements",
            "Attempts to place a NumaVM.",
            ["result"],
            registry=self.registry,
        )
        self.placement_seconds = Histogram(
            "numavm_operator_placement_seconds",
            "Time to place one NumaVM.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
            registry=self.registry,
        )
        self.refusals = Counter(
            "numavm_operator_refusals",
            "Claims that agents refused.",
            ["reason"],
            registry=self.registry,
        )
        self.errors = Counter(
            "numavm_operator_reconcile_errors",
            "Looks at a NumaVM that failed.",
            ["error"],
            registry=self.registry,
        )
        self.writes = Counter(
            "numavm_operator_api_writes",
            "Writes sent to the API server.",
            ["resource"],
            registry=self.registry,
        )
        self.listed = Gauge(
            "numavm_operator_last_list_timestamp_seconds",
            "When everything was last listed.",
            registry=self.registry,
        )
