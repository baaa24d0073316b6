"""The operator's metrics that are counted as things happen, in a registry of their own.

What is measured by looking (hosts, conditions, the queue) is in `observed`. Labels come from closed lists, or name
objects of which there is a bounded number (`Settings.vm_series_limit`).
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from numavm_api.conditions import ClaimRefusalReason
from numavm_api.errors import ConflictError, HostFaultError, RejectedError, TransientError
from numavm_operator.placement.outcome import Cause


class Metrics:
    """What is counted. Labels of closed lists are there from the start, so that the first count has a rate."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.leading = Gauge(
            "numavm_operator_leading", "1 while this operator leads.", registry=self.registry
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
        for result in ("placed", "unschedulable", "undecided", "over_quota", "conflict"):
            self.placements.labels(result)
        self.placement_seconds = Histogram(
            "numavm_operator_placement_seconds",
            "Time to place one NumaVM.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
            registry=self.registry,
        )
        self.unschedulable = Counter(
            "numavm_operator_unschedulable_hosts",
            "Hosts that did not fit, in attempts that found none, by cause.",
            ["cause"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "numavm_operator_refusals",
            "Claims that agents refused.",
            ["reason"],
            registry=self.registry,
        )
        for reason in ClaimRefusalReason:
            self.refusals.labels(reason.value)
        for cause in Cause:
            self.unschedulable.labels(cause.value)
        self.errors = Counter(
            "numavm_operator_reconcile_errors",
            "Looks at a NumaVM that failed.",
            ["error"],
            registry=self.registry,
        )
        for kind in (TransientError, ConflictError, RejectedError, HostFaultError):
            self.errors.labels(kind.__name__)
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
        self.loop_lag_seconds = Histogram(
            "numavm_operator_loop_lag_seconds",
            "How late the event loop ran a timer.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
            registry=self.registry,
        )
        self.loop_held_seconds = Histogram(
            "numavm_operator_loop_held_seconds",
            "For how much of that it was at work itself: the rest is a busy machine.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
            registry=self.registry,
        )
