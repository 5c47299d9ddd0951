"""What this process has seen of the requests it has submitted, and of the HTTP requests it has answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from paddler.jobs.measuring import Measured, Meter
from paddler.metrics.distribution import Distribution

TOKEN_BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Between two tokens, seconds: fine where people notice, 10 to 300 ms."""

FIRST_BOUNDS = (
    *(0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.25, 0.5, 0.75, 1.0, 2.0, 4.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0),
)
"""Until something begins, seconds: from a cached prompt to one that waits in a full buffer."""

WHOLE_BOUNDS = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84),
    *(327.68, 655.36, 1310.72, 2621.44),
)
"""Of a whole request, seconds: each twice the one before, as GenAI's semantic conventions of OpenTelemetry have them up
to 81.92."""

_Key = tuple[str, str]
_LABELS = ("pool", "class")


class _Histogram:
    """One distribution for each pool and class."""

    def __init__(self, name: str, help: str, bounds: tuple[float, ...]) -> None:
        self._name, self._help = name, help
        self.of: defaultdict[_Key, Distribution] = defaultdict(partial(Distribution, bounds))

    def family(self) -> Metric:
        family = HistogramMetricFamily(self._name, self._help, labels=_LABELS)
        for labels, distribution in sorted(self.of.items(), key=lambda pair: pair[0]):
            family.add_metric(labels, distribution.buckets(), distribution.sum)
        return family


class RequestMetrics(Meter, Collector):
    """A meter whose numbers Prometheus reads. Labels are names of pools and words of this code: no tenant, no id."""

    def __init__(self) -> None:
        self._queue = _Histogram(
            "paddler_request_queue_seconds",
            "From the submission of a request until an agent has begun it.",
            FIRST_BOUNDS,
        )
        self._first = _Histogram(
            "paddler_time_to_first_token_seconds",
            "From the submission of a request until its first token was here.",
            FIRST_BOUNDS,
        )
        self._tokens = _Histogram(
            "paddler_inter_token_latency_seconds",
            "Between two tokens of a request; those that came together share the time since those before.",
            TOKEN_BOUNDS,
        )
        self._whole = _Histogram(
            "paddler_request_duration_seconds",
            "From the submission of a request until its end was here.",
            WHOLE_BOUNDS,
        )
        self._outcomes: Counter[tuple[str, str, str, str]] = Counter()
        self._http: Counter[tuple[str, str, str, str]] = Counter()

    def tokens(self, measured: Measured, seconds: float, num_tokens: int) -> None:
        self._tokens.of[measured.pool, measured.request_class].observe(seconds / num_tokens, num_tokens)

    def ended(self, measured: Measured) -> None:
        key = measured.pool, measured.request_class
        self._outcomes[*key, measured.kind, measured.outcome] += 1
        for histogram, at in (
            (self._queue, measured.opened_at),
            (self._first, measured.first_token_at),
            (self._whole, measured.ended_at),
        ):
            if at is not None:
                histogram.of[key].observe(at - measured.submitted_at)

    def answered(self, service: str, method: str, route: str, status: int) -> None:
        """One HTTP request; `method` and `route` are bounded by the caller."""
        self._http[service, method, route, str(status)] += 1

    def collect(self) -> Iterator[Metric]:
        for histogram in (self._queue, self._first, self._tokens, self._whole):
            yield histogram.family()
        outcomes = CounterMetricFamily(
            "paddler_request_outcomes",
            "Requests submitted by this process, by how they ended for it.",
            labels=(*_LABELS, "kind", "outcome"),
        )
        for labels, number in sorted(self._outcomes.items()):
            outcomes.add_metric(labels, number)
        yield outcomes
        http = CounterMetricFamily(
            "paddler_http_requests",
            "HTTP requests answered by this process; a connection of WebSocket is one.",
            labels=("service", "method", "route", "status"),
        )
        for labels, number in sorted(self._http.items()):
            http.add_metric(labels, number)
        yield http
