"""Traces: what an OpenTelemetry collector receives, read with OpenTelemetry's own messages."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from local import ROOT, emulate, free_port, get, import_dicom, post, run, serve

PHANTOM = ROOT / "model/ct_phantom"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
STAGES = ["sources", "metadata", "memory", "frames", "preprocess", "inference", "postprocess", "write"]
# Spans are exported at once.
QUICKLY = {"OTEL_BSP_SCHEDULE_DELAY": "100"}


class Collector:
    """A minimal collector for OTLP over HTTP. Answers 503 while it is `busy`."""

    def __init__(self, port=0):
        self.spans, self.resources, self.requests, self.busy = [], [], [], False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, dict(self.headers)))
                if not outer.busy:
                    outer.keep(ExportTraceServiceRequest.FromString(body))
                self.send_response(503 if outer.busy else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def keep(self, message):
        for of_resource in message.resource_spans:
            self.resources.append(attributes(of_resource.resource))
            for scope in of_resource.scope_spans:
                self.spans.extend(scope.spans)

    def wait_for(self, found, seconds=20):
        """The spans, once `found` returns true for them."""
        until = time.monotonic() + seconds
        while not found(self.spans):
            assert time.monotonic() < until, [span.name for span in self.spans]
            time.sleep(0.05)
        return list(self.spans)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def attributes(holder):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in holder.attributes}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traced")
    run("phantom", "--out", folder / "phantom", "--size", 64, "--slices", 24)
    request = import_dicom(folder / "phantom/dicom", folder / "store")
    with emulate(folder / "store") as ahi:
        yield ahi.address, request


def answered(name="POST /invocations"):
    return lambda spans: any(span.name == name for span in spans)


def children(spans, parent):
    return [span for span in spans if span.parent_span_id == parent.span_id]


def test_a_request_is_a_span_of_the_callers_trace_with_its_stages_below(images, tmp_path):
    ahi, request = images
    output = f"file://{tmp_path}"
    with Collector() as collector, serve(
        PHANTOM, ahi, "--output-uri", output, OTEL_EXPORTER_OTLP_ENDPOINT=collector.address,
        OTEL_SERVICE_NAME="ct-segmentation", OTEL_EXPORTER_OTLP_HEADERS="x-tenant=radiology", **QUICKLY,
    ) as server:
        status, headers, body = post(
            server.address, request, traceparent=TRACEPARENT, tracestate="vendor=1",
            X_Amzn_SageMaker_Inference_Id="study-7",
        )
        assert status == 200, body
        spans = collector.wait_for(answered())
        log = [json.loads(line) for line in list(server.log)]

    [root] = [span for span in spans if span.name == "POST /invocations"]
    assert root.trace_id.hex() == TRACE and root.parent_span_id.hex() == CALLER
    assert root.kind == Span.SPAN_KIND_SERVER and root.trace_state == "vendor=1"
    assert root.status.code == Status.STATUS_CODE_UNSET
    said = attributes(root)
    assert said["http.request.method"] == "POST" and said["http.route"] == "/invocations"
    assert said["http.response.status_code"] == 200 and said["inference_id"] == "study-7"
    assert said["request_id"] == headers["x-request-id"]

    [one] = children(spans, root)
    assert one.name == "input" and attributes(one) == {"input": 0, "model": "ct_phantom"}
    stages = children(spans, one)
    assert [span.name for span in sorted(stages, key=lambda s: s.start_time_unix_nano)] == STAGES + ["store"]
    for span in stages:
        assert one.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
        assert span.status.code == Status.STATUS_CODE_UNSET, span
    by_name = {span.name: attributes(span) for span in stages}
    assert by_name["frames"]["frames"] == 24 and by_name["frames"]["encoded_bytes"] > 0
    assert by_name["inference"]["windows"] >= 1 and by_name["inference"]["network_seconds"] > 0

    # The timings in the answer are those of the spans.
    report = json.loads(body)
    timings = (report.get("results") or [report])[0]["timings"]
    seconds = {span.name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 for span in stages}
    assert abs(seconds["inference"] - timings["inference"]) < 0.05

    assert all(path == "/v1/traces" for path, _ in collector.requests)
    assert all(headers["x-tenant"] == "radiology" for _, headers in collector.requests)
    assert collector.resources[0]["service.name"] == "ct-segmentation"
    # Log lines carry the trace ID.
    lines = [line for line in log if line.get("span", {}).get("request_id") == headers["x-request-id"]]
    assert lines and all(line["span"]["trace_id"] == TRACE for line in lines)
    # Probes have no spans.
    assert not [span for span in spans if "ping" in span.name]


def test_what_failed_is_told_by_its_code(images):
    ahi, request = images
    with Collector() as collector, serve(
        PHANTOM, ahi, "--otlp-endpoint", collector.address + "/", **QUICKLY
    ) as server:
        missing = request | {"imageSetId": "0" * 32}
        assert post(server.address, missing, traceparent="not one")[0] == 404
        spans = collector.wait_for(answered())
        [root] = [span for span in spans if span.name == "POST /invocations"]
        assert root.trace_id.hex() != TRACE and not root.parent_span_id
        assert attributes(root)["error.type"] == "not_found"
        assert attributes(root)["http.response.status_code"] == 404
        # The caller's error is none of the server's.
        assert root.status.code == Status.STATUS_CODE_UNSET
        [one] = children(spans, root)
        assert one.status.code == Status.STATUS_CODE_ERROR and attributes(one)["error.type"] == "not_found"
        failed = [s.name for s in children(spans, one) if s.status.code == Status.STATUS_CODE_ERROR]
        assert failed == ["metadata"]
        # An unknown path may contain anything.
        get(f"{server.address}/Doe%5EJane")
        spans = collector.wait_for(answered("GET unknown"))
        assert not [span for span in spans if "Doe" in str(span)]
        assert collector.resources[0]["service.name"] == "ahi-inference"


def test_sagemaker_relays_the_callers_trace_in_custom_attributes(images):
    ahi, request = images
    with Collector() as collector, serve(
        PHANTOM, ahi, "--otlp-endpoint", collector.address, **QUICKLY
    ) as server:
        attributes = f"model=ct_phantom,traceparent={TRACEPARENT}"
        assert post(server.address, request, X_Amzn_SageMaker_Custom_Attributes=attributes)[0] == 200
        spans = collector.wait_for(answered())
        assert {span.trace_id.hex() for span in spans} == {TRACE}


def test_a_trace_that_is_not_sampled_is_not_exported(images):
    ahi, request = images
    with Collector() as collector, serve(
        PHANTOM, ahi, "--otlp-endpoint", collector.address, OTEL_TRACES_SAMPLER="parentbased_always_off", **QUICKLY
    ) as server:
        assert post(server.address, request)[0] == 200
        assert post(server.address, request, traceparent=TRACEPARENT)[0] == 200
        spans = collector.wait_for(answered())
        assert {span.trace_id.hex() for span in spans} == {TRACE}


def test_a_collector_that_is_away_disturbs_nobody(images):
    ahi, request = images
    port = free_port()
    with serve(PHANTOM, ahi, "--otlp-endpoint", f"http://127.0.0.1:{port}", **QUICKLY) as server:
        started = time.monotonic()
        assert post(server.address, request)[0] == 200
        away = lambda: [line for line in list(server.log) if "cannot be exported" in line]
        while not away():
            assert time.monotonic() < started + 20
            time.sleep(0.1)
        for _ in range(3):
            assert post(server.address, request)[0] == 200
        with Collector(port) as collector:
            assert post(server.address, request)[0] == 200
            collector.wait_for(answered())
            collector.busy = True
            assert post(server.address, request)[0] == 200
            stopping = time.monotonic()
            server.process.terminate()
            assert server.process.wait(20) == 0
            assert time.monotonic() < stopping + 10
    assert len(away()) <= 2, away()
    assert [line for line in list(server.log) if "exported again" in line]


def test_spans_leave_before_the_process_ends(images):
    ahi, request = images
    with Collector() as collector:
        with serve(PHANTOM, ahi, "--otlp-endpoint", collector.address, OTEL_BSP_SCHEDULE_DELAY="60000") as server:
            assert post(server.address, request)[0] == 200
            assert not collector.spans
        assert answered()(collector.spans)
