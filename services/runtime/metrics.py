"""The one metric registry of a process and the helpers that put metrics on it.

Responsible for: a registry of our own (nothing that a library registers on the global one leaks into `/metrics`), the
process, platform and garbage collector metrics, the bucket layouts that more than one module uses, and rendering.

Invariants: metrics that controller-runtime or client-go define keep their name, labels and buckets, so that
dashboards made for Go controllers work; names of our own start with `groundwork_`. A metric is made once, at import,
and its label children are bound once by the object that updates them: an update on a hot path is one method call.

Must not know: HTTP, Kubernetes, any service.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import prometheus_client
from prometheus_client import exposition, registry

__all__ = [
    "RECONCILE_BUCKETS",
    "REGISTRY",
    "WORKQUEUE_BUCKETS",
    "combine_with",
    "counter",
    "gauge",
    "histogram",
    "render",
]

# The Python client adds a `<name>_created` series to each counter and histogram child; Go clients do not, and it
# doubles the number of series of a counter.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # the library left it unannotated

REGISTRY: Final = prometheus_client.CollectorRegistry(auto_describe=True)
prometheus_client.ProcessCollector(registry=REGISTRY)
prometheus_client.PlatformCollector(registry=REGISTRY)
prometheus_client.GCCollector(registry=REGISTRY)

# Seconds. controller-runtime, pkg/internal/controller/metrics.
RECONCILE_BUCKETS: Final[tuple[float, ...]] = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    *(1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0),
    *(50.0, 60.0),
)
# Seconds, 10 ns to 1000 s by powers of ten. controller-runtime, pkg/internal/metrics/workqueue.go.
WORKQUEUE_BUCKETS: Final[tuple[float, ...]] = tuple(float(f"1e{exponent}") for exponent in range(-8, 4))


def counter(
    name: str, documentation: str, labels: Sequence[str] = (), *, known: Iterable[Sequence[str]] = ()
) -> prometheus_client.Counter:
    """Make a counter on `REGISTRY`; `name` ends in `_total`.

    The children of `known`, values of the labels, are shown from the start: for Prometheus a counter that appears with
    the value 1 has not increased, so the first of rare events would be missed.
    """
    made = prometheus_client.Counter(name, documentation, labels, registry=REGISTRY)
    for values in known:
        made.labels(*values)
    return made


def gauge(name: str, documentation: str, labels: Sequence[str] = ()) -> prometheus_client.Gauge:
    """Make a gauge on `REGISTRY`; a value that is cheap to compute is better computed at scrape (`set_function`)."""
    return prometheus_client.Gauge(name, documentation, labels, registry=REGISTRY)


def histogram(
    name: str, documentation: str, labels: Sequence[str] = (), *, buckets: Sequence[float]
) -> prometheus_client.Histogram:
    """Make a histogram on `REGISTRY`; `buckets` are upper bounds in the unit that ends the name."""
    return prometheus_client.Histogram(name, documentation, labels, registry=REGISTRY, buckets=buckets)


class _Rendered(registry.Collector):
    """What is shown: the registry, or what somebody makes of it."""

    combine: Callable[[Iterable[prometheus_client.Metric]], Iterable[prometheus_client.Metric]] | None = None

    def collect(self) -> Iterable[prometheus_client.Metric]:
        found = REGISTRY.collect()
        return found if self.combine is None else self.combine(found)


_RENDERED: Final = _Rendered()


def combine_with(
    combine: Callable[[Iterable[prometheus_client.Metric]], Iterable[prometheus_client.Metric]] | None,
) -> None:
    """Let `combine` turn the metrics of this process into those that are shown; None for as they are."""
    _RENDERED.combine = combine


def render(accept: str = "") -> tuple[bytes, str]:
    """Return the scrape body and its content type.

    `accept` is the request's Accept header: OpenMetrics when the scraper asks for it, the Prometheus text format
    otherwise (https://prometheus.io/docs/instrumenting/content_negotiation/).
    """
    encoder, content_type = exposition.choose_encoder(accept)
    return encoder(_RENDERED), content_type
