"""Streamed answers: from the server itself, and through a SageMaker runtime with boto3."""

import http.client
import json
import tarfile
import time
from urllib.parse import urlsplit

import jsonschema
import pytest
from botocore.exceptions import ClientError, EventStreamError

import tiny
from local import get
from streaming import LINES, Endpoints, events, names
from traffic import ask

# The stages of a model without preprocessing.
STAGES = ["metadata", "memory", "frames", "inference", "postprocess", "write"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    running = Endpoints(tmp_path_factory.mktemp("streaming"))
    yield running
    running.close()


class Open:
    """A request whose answer is read as it comes."""

    def __init__(self, server, request, accept=LINES):
        address = urlsplit(server.address)
        self.connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        headers = {"Content-Type": "application/json", "Accept": accept}
        self.connection.request("POST", "/invocations", json.dumps(request), headers)
        self.answer = self.connection.getresponse()

    def __iter__(self):
        for line in self.answer:
            yield json.loads(line)

    def hang_up(self):
        self.answer.close()
        self.connection.close()


def counted(server, status):
    """How many requests ended with this status."""
    labels = f'ahi_inference_requests_total{{route="/invocations",method="POST",status="{status}"}} '
    lines = get(f"{server.address}/metrics")[2].decode().splitlines()
    return sum(float(line.removeprefix(labels)) for line in lines if line.startswith(labels))


def eventually(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.05)


def refusal(call, *arguments, **parameters):
    with pytest.raises(ClientError) as error:
        call(*arguments, **parameters)
    return error.value.response


def test_events_of_a_server(place):
    before = counted(place.quick, 200)
    plain = ask(place.quick.address, "POST", "/invocations", place.request).json()
    opened = Open(place.quick, place.request)
    assert opened.answer.status == 200 and opened.answer.headers["content-type"] == LINES
    seen = list(opened)
    print(*seen, sep="\n")
    assert names(seen)[:2] == ["accepted", "started"] and names(seen)[-1] == "result"
    assert seen[0]["requestId"] == opened.answer.headers["x-request-id"]
    progress = [event for event in seen if event["event"] == "progress"]
    last = {event["stage"]: event for event in progress}
    assert list(last) == STAGES
    assert all(event["share"] == 1 and event["input"] == 0 for event in last.values())
    assert last["frames"]["total"] == 24
    report = seen[-1]["report"]
    assert tiny.check(report, place.images, 3) is None
    # The same as a plain answer, except for what differs between requests.
    for answer in (plain, report):
        assert answer.pop("requestId") and answer["results"][0].pop("timings")
        for output in answer["results"][0]["outputs"]:
            del output["fileName"]
    assert report["results"][0]["segments"] == plain["results"][0]["segments"]
    assert report.keys() == plain.keys() and report["results"][0].keys() == plain["results"][0].keys()
    eventually(lambda: counted(place.quick, 200) == before + 2)


def test_events_are_as_they_are_described(place):
    document = ask(place.quick.address, "GET", "/openapi.json").json()
    schema = {"$ref": "#/components/schemas/Event", "components": document["components"]}
    check = jsonschema.Draft202012Validator(schema)
    missing = {"inputs": [place.images.request | {"imageSetId": "0" * 32}]}
    for event in [*Open(place.quick, place.request), *Open(place.quick, missing)]:
        check.validate(event)
    assert not check.is_valid({"event": "progress", "input": 0})
    assert not check.is_valid({"event": "other"})


def test_server_sent_events(place):
    opened = Open(place.quick, place.request, "text/event-stream")
    assert opened.answer.headers["content-type"] == "text/event-stream"
    blocks = opened.answer.read().decode().removesuffix("\n\n").split("\n\n")
    fields = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    assert all(json.loads(field["data"])["event"] == field["event"] for field in fields)
    assert tiny.check(json.loads(fields[-1]["data"])["report"], place.images, 3) is None


def test_other_answers_are_as_they_were(place):
    for accept in ("*/*", "application/json", f"{LINES}, application/json"):
        answer = ask(place.quick.address, "POST", "/invocations", place.request, Accept=accept)
        assert answer.headers["content-type"] == "application/json" and "results" in answer.json()
    answer = ask(place.quick.address, "POST", "/invocations", place.request, Accept="image/png")
    assert (answer.status, answer.code) == (406, "not_acceptable")
    assert answer.json()["error"]["details"]["offers"][2:] == [LINES, "text/event-stream"]


def test_what_takes_long_is_had_by_stream_and_refused_otherwise(place):
    """Seconds instead of SageMaker's 60 and 480: the server's own limits are settings."""
    response = refusal(place.runtime.invoke_endpoint, EndpointName="slow", ContentType="application/json",
                       Body=json.dumps(place.request).encode())
    assert (response["Error"]["Code"], response["OriginalStatusCode"]) == ("ModelError", 504)
    error = json.loads(response["OriginalMessage"])["error"]
    assert error["code"] == "deadline_exceeded" and "InvokeEndpointWithResponseStream" in error["message"]

    began = time.monotonic()
    answer = place.stream("slow", InferenceId="case-7")
    assert answer["ContentType"] == LINES and answer["InvokedProductionVariant"] == "AllTraffic"
    text, came = b"", {}
    for part in answer["Body"]:
        text += part["PayloadPart"]["Bytes"]
        came.setdefault(text.count(b"\n"), time.monotonic() - began)
    seen = [json.loads(line) for line in text.splitlines()]
    for event in seen:
        print(json.dumps(event)[:300])
    assert seen[0]["inferenceId"] == "case-7" and seen[0]["limitSeconds"] == 60
    frames = [event["done"] for event in seen if event.get("stage") == "frames"]
    assert len(frames) > 3 and frames == sorted(frames) and frames[-1] == 24, frames
    # They arrived while it ran.
    assert min(came.values()) < 1 < max(came.values()), came
    assert names(seen)[-1] == "result" and tiny.check(seen[-1]["report"], place.images, 3) is None


def test_failures_before_and_after_the_first_event(place):
    bad = refusal(place.stream, "quick", {"inputs": []})
    assert (bad["Error"]["Code"], bad["OriginalStatusCode"]) == ("ModelError", 400)
    picture = {"EndpointName": "quick", "Accept": "image/png", "Body": json.dumps(place.request).encode(),
               "ContentType": "application/json"}
    bad = refusal(place.runtime.invoke_endpoint_with_response_stream, **picture)
    assert (bad["Error"]["Code"], bad["OriginalStatusCode"]) == ("ModelError", 406)
    for endpoint in ("queue", "unknown", "models"):
        assert refusal(place.stream, endpoint)["Error"]["Code"] == "ValidationError"

    before = counted(place.quick, 404)
    missing = {"inputs": [place.images.request | {"imageSetId": "0" * 32}]}
    seen = events(place.stream("quick", missing)["Body"])
    assert names(seen)[0] == "accepted" and names(seen)[-1] == "error"
    assert (seen[-1]["status"], seen[-1]["error"]["code"]) == (404, "not_found")
    eventually(lambda: counted(place.quick, 404) == before + 1)
    answered = [json.loads(line) for line in place.quick.log if '"answered"' in line]
    ours = [line for line in answered if line["span"]["request_id"] == seen[0]["requestId"]]
    assert [(line["status"], line["code"]) for line in ours] == [(404, "not_found")]


@pytest.mark.parametrize("way", ["server", "runtime"])
def test_who_hangs_up_cancels_the_work(place, way):
    before = counted(place.slow, 499)
    if way == "server":
        opened = Open(place.slow, place.request)
        assert next(iter(opened))["event"] == "accepted"
        opened.hang_up()
    else:
        body = place.stream("slow")["Body"]
        assert b"accepted" in next(iter(body))["PayloadPart"]["Bytes"]
        body.close()
    eventually(lambda: counted(place.slow, 499) == before + 1)
    running = "ahi_inference_requests_running 0\n"
    eventually(lambda: running in get(f"{place.slow.address}/metrics")[2].decode())


def test_target_model(place, tmp_path):
    """boto3 has no TargetModel for streams; an event handler adds the header."""
    tiny.bundle(tmp_path / "model", 5)
    with tarfile.open(tmp_path / "five.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "model", ".")
    place.s3.upload_file(str(tmp_path / "five.tar.gz"), "models", "five.tar.gz")

    def add(params, **_):
        params["headers"]["X-Amzn-SageMaker-Target-Model"] = "five.tar.gz"

    event = "before-call.sagemaker-runtime.InvokeEndpointWithResponseStream"
    place.runtime.meta.events.register(event, add)
    try:
        seen = events(place.stream("models")["Body"])
    finally:
        place.runtime.meta.events.unregister(event, add)
    assert tiny.check(seen[-1]["report"], place.images, 5) is None


def test_streams_that_do_not_come_to_their_end(place):
    for how, problem in [("cut", "broke"), ("endless", "time")]:
        parts = []
        with pytest.raises(EventStreamError) as error:
            parts.extend(place.stream("broken", CustomAttributes=how)["Body"])
        assert error.value.response["Error"]["Code"] == "ModelStreamError"
        assert problem in error.value.response["Error"]["Message"]
        assert events(parts)[0] == {"event": "accepted"}
    # The connection to the container was closed, too.
    assert place.broken.left.wait(10)


def test_large_reports_come_in_parts(place):
    request = place.request | {"outputs": ["dicom-seg", "nifti", "preview", "secondary-capture"]}
    parts = [part["PayloadPart"]["Bytes"] for part in place.stream("quick", request)["Body"]]
    assert max(map(len, parts)) <= 64 << 10 < sum(map(len, parts))
    report = json.loads(b"".join(parts).splitlines()[-1])["report"]
    assert [output["kind"] for output in report["results"][0]["outputs"]] == request["outputs"]
    assert all("data" in output for output in report["results"][0]["outputs"])
