"""AWS faults behind a server: a shorter form of scripts/faults.py."""

import pytest

import tiny
from faults import BUCKET, Broken
from faulty import Fault
from local import emulate, get, serve
from traffic import ask

FRAMES, OBJECTS, PUTS = "getImageFrame", "GET .*series", "PUT"


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    with Broken(folder, tiny.bundle(folder / "tiny", 20), 48, 60) as running:
        yield running


@pytest.mark.parametrize("kind, proxy", [("ahi", "ahi"), ("s3", "s3")])
@pytest.mark.parametrize("faults", [
    [Fault("truncate", 0.02), Fault("swap", 0.02), Fault("flip", 0.02, f"{FRAMES}|{OBJECTS}")],
    [Fault("reset", 0.03), Fault("5xx", 0.03), Fault("throttle", 0.03)],
], ids=["broken", "refused"])
def test_no_request_is_lost(broken, kind, proxy, faults):
    seen = broken.measure(kind, faults, 5, proxy)
    assert seen.injected > 5 and not seen.wrong
    assert seen.outcomes == {"200": 5}
    assert seen.counters["retries"] + seen.counters["refetches"] > 0


@pytest.mark.parametrize("kind, proxy, fault", [
    ("ahi", "ahi", Fault("stall", 0.02, "", 60)),
    ("s3", "s3", Fault("stall", 0.02, "GET", 60)),
    # The first request for each object; storing it has to wait for the second.
    ("store", "s3", Fault("silence", 1, PUTS, 60, times=1)),
], ids=["ahi", "s3", "store"])
def test_a_stall_costs_little(broken, kind, proxy, fault):
    usual = broken.measure(kind, [], 2, proxy)
    seen = broken.measure(kind, [fault], 3, proxy)
    assert seen.injected > 0
    assert seen.outcomes == {"200": 3} and not seen.wrong
    assert seen.longest < usual.longest + 4


@pytest.mark.parametrize("kind, proxy, fault, expected", [
    ("ahi", "ahi", Fault("denied"), "403 access_denied"),
    ("ahi", "ahi", Fault("expired"), "503 credentials"),
    ("ahi", "ahi", Fault("unknown-key", 1, FRAMES), "503 credentials"),
    ("ahi", "ahi", Fault("skew"), "503 credentials"),
    ("ahi", "ahi", Fault("5xx", 1, FRAMES), "502 upstream"),
    ("ahi", "ahi", Fault("reset", 1), "502 upstream"),
    ("ahi", "ahi", Fault("flip", 1, FRAMES), "422 corrupt_frame"),
    ("s3", "s3", Fault("denied"), "403 access_denied"),
    ("s3", "s3", Fault("expired"), "503 credentials"),
    ("s3", "s3", Fault("unknown-key"), "503 credentials"),
    ("s3", "s3", Fault("skew"), "503 credentials"),
    ("s3", "s3", Fault("412", 1, OBJECTS), "502 upstream"),
    ("s3", "s3", Fault("unavailable"), "502 upstream"),
    ("store", "s3", Fault("expired", 1, PUTS), "503 credentials"),
    ("store", "s3", Fault("denied", 1, PUTS), "403 access_denied"),
])
def test_faults_are_told_apart(broken, kind, proxy, fault, expected):
    seen = broken.measure(kind, [fault], 1, proxy)
    assert seen.outcomes == {expected: 1}, seen.answers[0].body
    if fault.kind in ("denied", "412", "expired", "unknown-key"):
        assert seen.counters["retries"] == 0


def test_the_second_of_two_outputs_fails(broken):
    seen = broken.measure("store", [Fault("5xx", 1, r"PUT .*nii\.gz")], 1, "s3")
    error = seen.answers[0].json()["error"]
    assert (seen.answers[0].status, error["code"]) == (502, "upstream")
    assert error["details"]["stored"] == ["dicom-seg"] and error["details"]["notStored"] == ["nifti"], error
    assert BUCKET not in error["message"] and ".nii" not in error["message"]
    assert broken.measure("store", [], 1, "s3").outcomes == {"200": 1}


def test_no_connection_and_no_credentials(broken, tmp_path):
    model = tiny.bundle(tmp_path / "tiny", 20)
    nowhere = "http://127.0.0.1:9"
    with serve(model, nowhere, S3_ENDPOINT_URL=nowhere, S3_PATH_STYLE="true") as server:
        for request in (broken.requests["ahi"], broken.requests["s3"]):
            answer = ask(server.address, "POST", "/invocations", request)
            assert (answer.status, answer.code) == (502, "upstream"), answer.body
    without = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true",
               "HOME": str(tmp_path)}
    with serve(model, broken.ahi.address, S3_ENDPOINT_URL=broken.s3.address, S3_PATH_STYLE="true",
               **without) as server:
        for kind in ("ahi", "s3", "store"):
            answer = ask(server.address, "POST", "/invocations", broken.requests[kind])
            assert (answer.status, answer.code) == (503, "credentials"), answer.body
            assert "credentials" in answer.json()["error"]["message"]


def test_only_what_is_allowed_is_read_and_written(broken, tmp_path):
    model = tiny.bundle(tmp_path / "tiny", 20)
    datastore = broken.image_set["datastoreId"]
    allowed = {
        "AHI_ALLOWED_DATASTORES": f"{datastore},{'0' * 32}",
        "S3_ALLOWED_INPUTS": f"s3://{BUCKET}/series,s3://other-bucket",
        "S3_ALLOWED_OUTPUTS": f"s3://{BUCKET}/out/",
    }
    with serve(model, broken.ahi.address, S3_ENDPOINT_URL=broken.s3.address, S3_PATH_STYLE="true", **allowed) as server:
        for request in broken.requests.values():
            assert ask(server.address, "POST", "/invocations", request).status == 200
        before = broken.ahi.requests + broken.s3.requests
        good = broken.image_set
        for request, field, setting in [
            (good | {"datastoreId": "1" * 32}, "datastoreId", "AHI_ALLOWED_DATASTORES"),
            ({"datastoreId": "1" * 32, "studyInstanceUID": "1.2"}, "datastoreId", "AHI_ALLOWED_DATASTORES"),
            ({"s3Uri": f"s3://{BUCKET}/series2/"}, "s3Uri", "S3_ALLOWED_INPUTS"),
            ({"s3Uri": f"s3://{BUCKET}/series/../out/x"}, "s3Uri", "S3_ALLOWED_INPUTS"),
            ({"s3Uri": f"s3://{BUCKET}/secret.json"}, "s3Uri", "S3_ALLOWED_INPUTS"),
            ({"inputs": [good, {"s3Uri": f"s3://{BUCKET}"}]}, "s3Uri", "S3_ALLOWED_INPUTS"),
            (good | {"outputS3Uri": f"s3://{BUCKET}/outside"}, "outputS3Uri", "S3_ALLOWED_OUTPUTS"),
        ]:
            answer = ask(server.address, "POST", "/invocations", request)
            assert (answer.status, answer.code) == (403, "access_denied"), answer.body
            details = answer.json()["error"]["details"]
            assert (details["field"], details["setting"]) == (field, setting)
        assert broken.ahi.requests + broken.s3.requests == before, "nothing was called"


def test_what_is_open_is_said_at_the_start(tmp_path):
    with emulate(tmp_path / "store") as ahi, serve(tiny.bundle(tmp_path / "tiny", 20), ahi.address) as server:
        assert get(f"{server.address}/ping")[0] == 200
        assert any("S3_ALLOWED_OUTPUTS" in line for line in server.log), server.log
