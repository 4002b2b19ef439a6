"""Spans at a real collector on loopback: ids, routes and versions, and nothing of a patient."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from serving.metrics import Metrics
from serving.tracing import Stages

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector(monkeypatch):
    """What an OpenTelemetry collector would get."""
    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield received
    server.shutdown()
    thread.join()
    server.server_close()


def spans(received):
    found = [
        span
        for request in received
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]
    return {span.name: span for span in found}


def attributes(span):
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def asked(stages, headers, *, fails=False):
    with stages.request("POST", "/v1/{model}/predict", headers) as call:
        with stages("score", "ed_admission", "3"):
            pass
        try:
            with stages("log"):
                if fails:
                    float("sbp=88")
        except ValueError:
            call.ended(503)
        else:
            call.ended(200)


def test_a_request_is_a_span_and_its_stages_are_its_children(collector):
    stages = Stages.start(Metrics())
    asked(stages, {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "mrn=123"})
    stages.close()
    found = spans(collector)
    request = found["POST /v1/{model}/predict"]
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert request.trace_state == ""
    assert {found[name].parent_span_id for name in ("score", "log")} == {request.span_id}
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/v1/{model}/predict",
        "http.response.status_code": 200,
    }
    assert attributes(found["score"]) == {"model": "ed_admission", "version": "3"}
    [resource] = [of.resource for request in collector for of in request.resource_spans]
    assert ("service.name", "caremodels") in [(a.key, a.value.string_value) for a in resource.attributes]


def test_a_failure_is_marked_and_its_text_is_not_sent(collector):
    stages = Stages.start(Metrics())
    asked(stages, {}, fails=True)
    stages.close()
    found = spans(collector)
    assert found["log"].status.code == found["POST /v1/{model}/predict"].status.code == 2
    assert not found["log"].events
    assert b"sbp" not in b"".join(request.SerializeToString() for request in collector)


@pytest.mark.parametrize(
    "given", ["00-xyz-1-01", "", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "sbp=88"]
)
def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(collector, given):
    stages = Stages.start(Metrics())
    asked(stages, {"traceparent": given})
    stages.close()
    assert spans(collector)["POST /v1/{model}/predict"].parent_span_id == b""


def test_requests_at_the_same_time_keep_their_own_children(collector):
    stages = Stages.start(Metrics())

    async def ask(name):
        with stages.request("GET", name, {}):
            await asyncio.sleep(0.01)
            with stages(f"child of {name}"):
                await asyncio.sleep(0.01)

    async def both():
        await asyncio.gather(ask("a"), ask("b"))

    asyncio.run(both())
    stages.close()
    found = spans(collector)
    for name in ("a", "b"):
        assert found[f"child of {name}"].parent_span_id == found[f"GET {name}"].span_id


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported():
    code = (
        "import sys; from serving.metrics import Metrics; from serving.tracing import Stages\n"
        "s = Stages.start(Metrics())\n"
        "with s.request('GET', '/', {}) as call, s('log'): call.ended(200)\n"
        "s.close(); print(*[name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={}
    )
    assert ran.stdout.strip() == ""


@pytest.mark.slow
def test_spans_of_a_real_request_reach_the_collector_and_hold_nothing_of_the_patient(
    collector, serve, visit, waiting, monkeypatch
):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    server = serve("--demo")
    parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    context = [{"patient_id": "canary-1", "site": "canary-2"}]
    answer = server.predict(visit | {"sbp": 77.125}, headers=parent, context=context)
    assert answer.status_code == 200
    waiting(lambda: "POST /v1/{model}/predict" in spans(collector))
    request = spans(collector)["POST /v1/{model}/predict"]
    assert request.trace_id.hex() == TRACE
    assert attributes(request)["http.response.status_code"] == 200
    server.stop()
    said = str(collector)
    assert "canary" not in said
    assert "77.125" not in said
    assert "127.0.0.1" not in said
