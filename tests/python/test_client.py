"""The Python client against a server, a real-time endpoint and an asynchronous one."""

import subprocess
import sys
import zipfile

import pytest

import tiny
from local import ROOT, free_port
from streaming import Endpoints

import ahi_inference_client as client


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    running = Endpoints(tmp_path_factory.mktemp("client"))
    yield running
    running.close()


def failure(call, *arguments, **parameters):
    with pytest.raises(client.Failed) as error:
        call(*arguments, **parameters)
    return error.value


def test_a_server(place, tmp_path):
    server = client.Server(place.quick.address)
    assert tiny.check(server.invoke(place.request), place.images, 3) is None
    seen = []
    report = server.stream(place.request, progress=seen.append, inference_id="case-8")
    assert tiny.check(report, place.images, 3) is None and report["inferenceId"] == "case-8"
    assert seen[0]["event"] == "accepted" and seen[-1]["event"] == "progress"
    [output] = client.outputs(report)
    assert (output.kind, output.read()[128:132]) == ("dicom-seg", b"DICM")
    output.description["sha256"] = "0" * 64
    assert failure(output.read).code == "checksum"

    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in (place.images.store.parent / "phantom/dicom").rglob("*.dcm"):
            archive.write(file, file.name)
    images = (tmp_path / "images.zip").read_bytes()
    report = server.stream(images, content_type="application/zip")
    assert tiny.check(report, place.images, 3) is None


def test_failures_of_a_server(place):
    server = client.Server(place.quick.address)
    missing = {"inputs": [place.images.request | {"imageSetId": "0" * 32}]}
    for call in (server.invoke, server.stream):
        failed = failure(call, {"inputs": []})
        assert (failed.status, failed.code) == (400, "invalid_request") and failed.request_id
        failed = failure(call, missing)
        assert (failed.status, failed.code) == (404, "not_found") and failed.request_id
        nobody = client.Server(f"http://127.0.0.1:{free_port()}")
        assert failure(getattr(nobody, call.__name__), place.request).code == "unreachable"
    broken = client.Server(f"http://127.0.0.1:{place.broken.server_port}")
    assert failure(broken.stream, place.request).code == "incomplete"
    slow = client.Server(place.slow.address)
    assert failure(slow.invoke, place.request).code == "deadline_exceeded"
    with pytest.raises(ValueError):
        client.Server("ftp://host")
    with pytest.raises(ValueError):
        server.invoke(b"bytes of no type")


def test_leaving_a_stream_cancels_the_work(place):
    for each in client.Server(place.slow.address).events(place.request):
        if each["event"] == "progress":
            break
    # The slot is free again, so the next request is accepted at once.
    assert tiny.check(client.Server(place.slow.address).stream(place.request), place.images, 3) is None
    assert any("went away" in line for line in place.slow.log)


def test_a_real_time_endpoint(place):
    quick = client.Endpoint("quick", place.runtime)
    assert tiny.check(quick.invoke(place.request), place.images, 3) is None
    seen = []
    report = client.Endpoint("slow", place.runtime).stream(place.request, progress=seen.append)
    assert tiny.check(report, place.images, 3) is None
    assert {event["event"] for event in seen} >= {"accepted", "started", "progress"}
    for call in (quick.invoke, quick.stream):
        failed = failure(call, {"inputs": []})
        assert (failed.status, failed.code) == (400, "invalid_request")
        failed = failure(call, place.request, model="unknown")
        assert (failed.status, failed.code) == (404, "model_not_found")
    failed = failure(client.Endpoint("broken", place.runtime).stream, place.request, model="x")
    assert failed.code == "ModelStreamError"


def test_an_asynchronous_endpoint(place):
    queue = client.AsyncEndpoint("queue", "s3://input/requests/", place.runtime, place.s3)
    request = place.request | {"outputS3Uri": "s3://results/segmentations"}
    seen = []
    job = queue.submit(request, inference_id="case-9")
    report = queue.wait(job, timeout=60, progress=seen.append)
    assert report["inferenceId"] == job.inference_id == "case-9"
    assert tiny.check(report, place.images, 3) is None
    [output] = client.outputs(report, place.s3)
    assert output.description["uri"].startswith("s3://results/") and output.read()[128:132] == b"DICM"
    failed = failure(queue.invoke, {"inputs": []}, timeout=60)
    assert (failed.status, failed.code) == (None, "invalid_request")
    nowhere = client.Job("x", "s3://results/none", None)
    assert failure(queue.wait, nowhere, timeout=0.6, progress=seen.append).code == "timeout"
    assert seen[-1]["event"] == "waiting"


def test_a_server_needs_the_standard_library_alone(place):
    """In a Python without any packages."""
    program = f"import ahi_inference_client as c; print(c.Server({place.quick.address!r}).stream({place.request!r})['model'])"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(ROOT / 'clients/python')!r}); {program}"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
