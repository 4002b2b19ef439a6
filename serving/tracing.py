"""What a request is doing: timed for the metrics, and as OpenTelemetry spans where they are wanted.

Spans are sent where OTEL_EXPORTER_OTLP_ENDPOINT says, over HTTP; OpenTelemetry's other variables hold
too. Without it nothing of it is imported. A span carries route, model, version and status: never a
path, a header, a name or a value that a caller wrote. A ``traceparent`` (W3C) that comes with a request
makes its span a child of the caller's; the ``tracestate`` beside it is free text and is dropped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from serving.metrics import Metrics

if TYPE_CHECKING:  # a quarter of a second to import, for those who want spans
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
FAILED = 500


class Stages:
    """One a worker. ``with stages("score", model, version):`` is the whole of its use in a request.

    >>> stages = Stages(Metrics())
    >>> with stages("score", "ed_admission", "3"):
    ...     risk = 0.5
    >>> b'stage_seconds_count{stage="score"} 1.0' in stages.metrics.show()
    True
    """

    def __init__(self, metrics: Metrics, provider: TracerProvider | None = None) -> None:
        self.metrics = metrics
        self._provider = provider
        self._tracer = provider.get_tracer("caremodels") if provider else None

    @classmethod
    def start(cls, metrics: Metrics) -> Stages:
        """With spans, where the environment says where they go."""
        return cls(metrics, _provider() if any(os.environ.get(name) for name in ENDPOINTS) else None)

    def __call__(self, name: str, model: str = "", version: str = "") -> Stage:
        """A part of a request, a child of its span."""
        span = None
        if self._tracer is not None:
            about = {"model": model, "version": version} if model else None
            span = self._tracer.start_span(name, attributes=about)
        return Stage(self.metrics, name, span)

    def request(self, method: str, route: str, headers: Mapping[str, str]) -> Call:
        """The whole of a request; tell :class:`Call` how it ended."""
        if self._tracer is None:
            return Call(None)
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        given = headers.get("traceparent")
        parent = TraceContextTextMapPropagator().extract({"traceparent": given} if given else {})
        about = {"http.request.method": method, "http.route": route}
        span = self._tracer.start_span(
            f"{method} {route}", context=parent, kind=SpanKind.SERVER, attributes=about
        )
        return Call(span)

    def close(self) -> None:
        """Send what has not been sent yet."""
        if self._provider is not None:
            self._provider.shutdown()


class Call:
    """The span of a request, or nothing."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span | None) -> None:
        self._span = span
        self._token: Any = None

    def __enter__(self) -> Self:
        self._token = _attach(self._span)
        return self

    def ended(self, status: int) -> None:
        """``status``: of HTTP."""
        if self._span is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_attribute("http.response.status_code", status)
            if status >= FAILED:
                self._span.set_status(StatusCode.ERROR)

    def __exit__(self, *error: object) -> None:
        _end(self._span, self._token, failed=error[0] is not None)


class Stage:
    """A stage of a request: its seconds, and its span where spans are wanted."""

    __slots__ = ("_began", "_metrics", "_name", "_span", "_ticket", "_token")

    def __init__(self, metrics: Metrics, name: str, span: Span | None) -> None:
        self._metrics, self._name, self._span = metrics, name, span
        self._token: Any = None

    def __enter__(self) -> Self:
        self._ticket = self._metrics.begin(self._name)
        if self._span is not None:
            self._token = _attach(self._span)
        self._began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._metrics.stage(self._name, time.perf_counter() - self._began, self._ticket)
        if self._span is not None:
            _end(self._span, self._token, failed=error[0] is not None)


def _attach(span: Span | None) -> Any:
    """Make ``span`` the parent of those that begin within it."""
    if span is None:
        return None
    from opentelemetry import context, trace

    return context.attach(trace.set_span_in_context(span))


def _end(span: Span | None, token: Any, *, failed: bool) -> None:
    if span is None:
        return
    from opentelemetry import context
    from opentelemetry.trace import StatusCode

    context.detach(token)
    if failed:  # not the exception: its text may repeat a value
        span.set_status(StatusCode.ERROR)
    span.end()


def _provider() -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "caremodels")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
