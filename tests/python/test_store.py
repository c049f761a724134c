"""Results stored in archives by STOW-RS: the local HealthImaging, Orthanc, and a stand-in that misbehaves."""

import base64
import hashlib
import io
import json
import re
import time
import urllib.request

import boto3
import pydicom
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

import tiny
from archives import MISSING, Orthanc, StandIn
from faulty import Fault, Faulty
from local import emulate, get, open_url, post, serve

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
needs_orthanc = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.bundle(tmp_path_factory.mktemp("model") / "bundle", 5)


@pytest.fixture(scope="module")
def ahi(images):
    with emulate(images.store) as running:
        yield running


@pytest.fixture
def archive():
    with StandIn() as running:
        yield running


@pytest.fixture(scope="module")
def server(model, ahi):
    """A server that may store to some archive on loopback, and gives it two seconds."""
    # Ports are not known in advance: a test that uses another archive starts its own server for it.
    with StandIn() as archive, serve(model, ahi.address, **allowed(archive)) as running:
        running.archive = archive
        yield running


def allowed(archive, **more):
    return {"DICOMWEB_ALLOWED": archive.url, "STORE_TIMEOUT": "2"} | more


@pytest.fixture(autouse=True)
def reset(server):
    archive = server.archive
    archive.kept, archive.faults, archive.refused, archive.requests = {}, [], {}, []
    archive.searches, archive.stores, archive.warning, archive.says_duplicate = True, 0, None, False


def ask(server, body, store, **options):
    status, _, answer = post(server.address, body | {"store": store} | options)
    return status, json.loads(answer)


def result_of(server, body, store, **options):
    status, answer = ask(server, body, store, **options)
    assert status == 200, answer
    [result] = answer["results"]
    return result


def statuses(result):
    return [one["status"] for one in result["store"]["instances"]]


def counted(server):
    _, _, text = get(f"{server.address}/metrics")
    prefix = 'ahi_inference_archive_instances_total{status="'
    lines = [line for line in text.decode().splitlines() if line.startswith(prefix)]
    return {line[len(prefix):].split('"')[0]: int(line.rsplit(" ", 1)[1]) for line in lines}


# Orthanc.


@needs_orthanc
def test_orthanc_keeps_what_was_made(images, model, ahi, tmp_path):
    with Orthanc(tmp_path) as orthanc:
        user = {"DICOMWEB_USER": orthanc.USER, "DICOMWEB_PASSWORD": orthanc.PASSWORD}
        with serve(model, ahi.address, STORE=orthanc.url, **user) as server:
            status, _, body = post(server.address, images.request)
            assert status == 200, body
            [result] = json.loads(body)["results"]
            assert result["store"]["destination"] == {"dicomweb": orthanc.url}
            [stored], [output] = result["store"]["instances"], result["outputs"]
            assert (stored["status"], stored["kind"], stored["reason"]) == ("stored", "dicom-seg", None)
            study, series, uid = result["studyInstanceUID"], stored["seriesInstanceUID"], stored["sopInstanceUID"]
            assert orthanc.instances(study) == [(series, uid)]
            # Orthanc keeps files as they are, including the header.
            kept = orthanc.instance(study, series, uid)
            assert hashlib.sha256(kept).hexdigest() == output["sha256"] and len(kept) == output["bytes"]
            assert output["uri"] == f"{orthanc.url}/studies/{study}/series/{series}/instances/{uid}"
            assert "data" not in output
            assert pydicom.dcmread(io.BytesIO(kept)).SOPClassUID == SEGMENTATION

            again = result_of(server, images.request, {"dicomweb": orthanc.url})
            assert statuses(again) == ["already"], again["store"]
            assert again["store"]["instances"][0]["sopInstanceUID"] == uid
            assert orthanc.instances(study) == [(series, uid)]
            assert orthanc.instance(study, series, uid) == kept
            # This request stores nothing.
            result = result_of(server, images.request, False)
            assert "store" not in result and "data" in result["outputs"][0]
        with serve(model, ahi.address, STORE=orthanc.url, **user | {"DICOMWEB_PASSWORD": "open:sesame2"}) as server:
            status, _, body = post(server.address, images.request)
            error = json.loads(body)["error"]
            assert (status, error["code"]) == (503, "credentials"), error
            assert "DICOMWEB_USER" in error["message"] and "sesame" not in body.decode()
        assert not [line for line in server.log if "sesame" in line]


# The local HealthImaging.


def client(ahi):
    return boto3.client(
        "medical-imaging", endpoint_url=ahi.address, region_name="us-east-1", aws_access_key_id="test",
        aws_secret_access_key="test", config=Config(inject_host_prefix=False),
    )


def sets_of(ahi, datastore, series):
    criteria = {"filters": [{"values": [{"DICOMSeriesInstanceUID": series}], "operator": "EQUAL"}]}
    found = client(ahi).search_image_sets(datastoreId=datastore, searchCriteria=criteria)
    return found["imageSetsMetadataSummaries"]


def test_healthimaging_keeps_what_was_made(images, ahi, server):
    datastore = images.request["datastoreId"]
    result = result_of(server, images.request, True)
    assert result["store"]["destination"] == {"datastoreId": datastore}
    [stored], [image_set], [output] = result["store"]["instances"], result["store"]["imageSets"], result["outputs"]
    assert stored["status"] == "stored", stored
    series, uid = stored["seriesInstanceUID"], stored["sopInstanceUID"]
    assert image_set["isPrimary"] is True and image_set["seriesInstanceUID"] == series
    [found] = sets_of(ahi, datastore, series)
    assert found["imageSetId"] == image_set["imageSetId"] and found["isPrimary"] is True
    assert found["DICOMTags"]["DICOMStudyInstanceUID"] == result["studyInstanceUID"]
    signed = {"Authorization": "AWS4-HMAC-SHA256", "Accept": "application/dicom; transfer-syntax=*"}
    status, _, kept = open_url(urllib.request.Request(output["uri"], headers=signed))
    assert status == 200, kept
    assert hashlib.sha256(kept).hexdigest() == output["sha256"]

    again = result_of(server, images.request, {"datastoreId": datastore})
    assert statuses(again) == ["already"], again["store"]
    assert again["store"]["instances"][0]["sopInstanceUID"] == uid
    assert again["store"]["imageSets"] == result["store"]["imageSets"]
    assert sets_of(ahi, datastore, series) == [found]


def test_requests_to_healthimaging_are_signed(images, ahi, archive, tmp_path):
    """Compared with botocore's own signature. The stand-in creates no image set, and the report says so."""
    endpoint = archive.url.removesuffix("/dicom-web")
    settings = {"AHI_DICOMWEB_ENDPOINT_URL": endpoint, "AWS_SESSION_TOKEN": "session", "AWS_REGION": "eu-west-1"}
    # Another model creates instances other than the existing ones.
    with serve(tiny.bundle(tmp_path / "model", 6), ahi.address, **settings) as server:
        result = result_of(server, images.request, True)
    assert statuses(result) == ["stored"] and result["store"]["imageSets"] == []
    assert any("no image set" in warning for warning in result["warnings"])
    [(method, path, headers)] = archive.requests
    assert path == f"/datastore/{images.request['datastoreId']}/studies/{result['studyInstanceUID']}"
    headers = {name.lower(): value for name, value in headers.items()}
    assert headers["accept"] == "application/dicom+json" and headers["x-amz-security-token"] == "session"
    assert headers["x-amz-content-sha256"] == archive.digest
    scope, signed_names, signature = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=test/(\S+), SignedHeaders=(\S+), Signature=([0-9a-f]{64})",
        headers["authorization"]).groups()
    assert scope.endswith("/eu-west-1/medical-imaging/aws4_request")
    assert {"host", "content-type", "x-amz-content-sha256", "x-amz-date"} <= set(signed_names.split(";"))
    request = AWSRequest(method, endpoint + path, {name: headers[name] for name in signed_names.split(";")})
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials("test", "test", "session"), "medical-imaging", "eu-west-1")
    canonical = auth.canonical_request(request)
    assert auth.signature(auth.string_to_sign(request, canonical), request) == signature


class Once(Faulty):
    """A proxy whose fault occurs only once."""

    def drawn(self, what, body):
        fault, chance = super().drawn(what, body)
        if fault:
            self.faults = []
        return fault, chance


def test_healthimaging_keeps_nothing_twice(images, ahi, tmp_path):
    faults = ("reset", "truncate", "stall", "unavailable", "throttle")
    for number, _ in enumerate(faults, 11):
        tiny.bundle(tmp_path / f"models/m{number}", number)
    datastore = images.request["datastoreId"]
    with Once(ahi.address, "ahi") as proxy:
        settings = {"AHI_DICOMWEB_ENDPOINT_URL": proxy.address, "STORE_TIMEOUT": "3"}
        with serve(tmp_path / "models", ahi.address, **settings) as server:
            for number, kind in enumerate(faults, 11):
                proxy.faults = [Fault(kind, where="POST .*/studies/")]
                result = result_of(server, images.request, True, model=f"m{number}")
                assert statuses(result) == ["stored"] and proxy.injected[kind] == 1, (kind, result["store"])
                [stored], [image_set] = result["store"]["instances"], result["store"]["imageSets"]
                [found] = sets_of(ahi, datastore, stored["seriesInstanceUID"])
                assert (found["imageSetId"], found["version"]) == (image_set["imageSetId"], 1), kind


def test_a_data_store_that_is_not_there_is_told(images, server):
    status, answer = ask(server, images.request, {"datastoreId": "f" * 32})
    assert (status, answer["error"]["code"]) == (404, "not_found"), answer
    assert answer["error"]["details"]["datastoreId"] == "f" * 32


# Faults, with a stand-in.


def test_what_passes_is_repeated_and_nothing_is_twice(images, server):
    archive = server.archive
    for fault in (503, 429, 500, "drop-before", "drop-after", "stall", "stall-after", "half"):
        archive.kept, archive.stores, archive.faults = {}, 0, [fault]
        result = result_of(server, images.request, {"dicomweb": archive.url})
        assert statuses(result) == ["stored"], (fault, result["store"])
        assert archive.digests() == [result["outputs"][0]["sha256"]], fault
        # Anything kept before the answer was lost is not sent again.
        assert archive.stores == (1 if fault in ("drop-before", "drop-after", "stall-after", "half") else 2), fault


def test_an_archive_without_search_is_stored_in_all_the_same(images, server):
    archive = server.archive
    archive.searches, archive.says_duplicate, archive.faults = False, True, ["drop-after"]
    result = result_of(server, images.request, {"dicomweb": archive.url})
    # The second attempt learns that the first one succeeded.
    assert statuses(result) == ["already"] and archive.stores == 2
    assert archive.digests() == [result["outputs"][0]["sha256"]]


def test_an_archive_that_keeps_failing_is_an_error_that_names_it(images, server):
    archive = server.archive
    for fault, status, code in ((503, 502, "upstream"), (403, 403, "access_denied"), (302, 502, "upstream"),
                                (404, 404, "not_found"), ((200, b"<html>Doe</html>"), 502, "upstream"),
                                ((200, b"[" * 100_000), 502, "upstream"), ((200, b"x" * 2_000_000), 502, "upstream")):
        archive.faults = [fault] * 20
        got, answer = ask(server, images.request, {"dicomweb": archive.url})
        error = answer["error"]
        assert (got, error["code"]) == (status, code), (fault, answer)
        assert error["details"]["archive"] == archive.url.removesuffix("/dicom-web")
        assert "Doe" not in json.dumps(answer)
    assert not [path for _, path, _ in archive.requests if "elsewhere" in path]
    assert archive.kept == {}


def test_refused_instances_are_told_and_given(images, server):
    archive = server.archive
    archive.refused = {SEGMENTATION: 0x0122}
    before = counted(server)
    result = result_of(server, images.request, {"dicomweb": archive.url}, outputs=["dicom-seg", "nifti"])
    [stored] = result["store"]["instances"]
    assert stored["status"] == "failed" and "0122H" in stored["reason"]
    assert any(stored["sopInstanceUID"] in warning and "0122H" in warning for warning in result["warnings"])
    seg, nifti = result["outputs"]
    content = base64.b64decode(seg["data"])
    assert hashlib.sha256(content).hexdigest() == seg["sha256"] and nifti["data"]
    # Refused for good: sent only once.
    assert archive.stores == 1
    assert counted(server)["failed"] == before["failed"] + 1
    # A DICOM answer has no report.
    status, _, body = post(
        server.address, images.request | {"store": {"dicomweb": archive.url}}, Accept="application/dicom")
    assert status == 502 and "0122H" in json.loads(body)["error"]["message"]


def test_one_instance_that_is_refused_does_not_lose_the_others(images, server):
    archive = server.archive
    archive.refused = {SECONDARY_CAPTURE: 0xA900}
    kinds = ["dicom-seg", "secondary-capture", "preview"]
    result = result_of(server, images.request, {"dicomweb": archive.url}, outputs=kinds)
    told = {one["kind"]: one for one in result["store"]["instances"]}
    assert told["dicom-seg"]["status"] == "stored" and told["secondary-capture"]["status"] == "failed"
    assert "A900H" in told["secondary-capture"]["reason"]
    seg, capture, preview = result["outputs"]
    assert archive.digests() == [seg["sha256"]] and "data" not in seg
    # Outputs that no archive holds are in the answer.
    assert capture["data"] and preview["data"]
    # Once the archive accepts it, it alone is sent.
    archive.refused = {}
    again = result_of(server, images.request, {"dicomweb": archive.url}, outputs=kinds)
    assert {one["kind"]: one["status"] for one in again["store"]["instances"]} == {
        "dicom-seg": "already", "secondary-capture": "stored"}
    assert all(len(kept) == 1 for kept in archive.kept.values()) and len(archive.kept) == 2


def test_warnings_are_told(images, server):
    archive = server.archive
    archive.warning = 0xB000
    result = result_of(server, images.request, {"dicomweb": archive.url})
    [stored] = result["store"]["instances"]
    assert stored["status"] == "warning" and "B000H" in stored["reason"]
    assert any("B000H" in warning for warning in result["warnings"])


def test_a_conflict_without_words_is_final(images, server):
    archive = server.archive
    archive.faults = [409]
    result = result_of(server, images.request, {"dicomweb": archive.url})
    assert statuses(result) == ["failed"] and archive.stores == 1


def test_each_input_is_stored(images, server):
    archive = server.archive
    status, answer = ask(server, {"inputs": [images.request] * 2}, {"dicomweb": archive.url})
    assert status == 200, answer
    told = [one for result in answer["results"] for one in result["store"]["instances"]]
    assert sorted(archive.kept) == sorted({one["sopInstanceUID"] for one in told})
    assert all(len(kept) == 1 for kept in archive.kept.values())


# Which archives may be used, and what is disclosed.


def test_places_that_are_not_allowed_are_refused(images, server, archive):
    # The other archive is not among those allowed.
    for store, status, code in (
        ({"dicomweb": archive.url}, 403, "access_denied"),
        ({"dicomweb": server.archive.url + "2"}, 403, "access_denied"),
        ({"dicomweb": server.archive.url.replace("127.0.0.1", "localhost")}, 403, "access_denied"),
        ({"dicomweb": server.archive.url + "/../x"}, 400, "invalid_request"),
        ({"dicomweb": server.archive.url.replace("http://", "http://a@")}, 400, "invalid_request"),
        ({"dicomweb": "file:///etc/passwd"}, 400, "invalid_request"),
        ({"datastoreId": "x"}, 400, "invalid_request"),
        ("yes", 400, "invalid_request"),
    ):
        got, answer = ask(server, images.request, store)
        assert (got, answer["error"]["code"]) == (status, code), (store, answer)
    assert archive.requests == [] and server.archive.requests == []


def test_only_dicom_is_stored(images, server):
    status, answer = ask(server, images.request, {"dicomweb": server.archive.url}, outputs=["nifti"])
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert answer["error"]["details"]["field"] == "store" and "dicom-seg" in answer["error"]["message"]


def test_credentials_go_to_their_origin_alone(images, model, ahi, archive, tmp_path):
    token = tmp_path / "token"
    token.write_text("hunter2\n")
    archive.token = "hunter2"
    with StandIn() as other:
        settings = {"STORE": archive.url, "DICOMWEB_ALLOWED": other.url, "DICOMWEB_TOKEN_FILE": str(token)}
        with serve(model, ahi.address, **settings) as server:
            assert statuses(result_of(server, images.request, {"dicomweb": other.url})) == ["stored"]
            assert not [headers for _, _, headers in other.requests if "Authorization" in headers]
            assert statuses(json.loads(post(server.address, images.request)[2])["results"][0]) == ["stored"]
            # Tokens can be replaced.
            archive.token = "hunter3"
            archive.kept = {}
            status, answer = ask(server, images.request, {"dicomweb": archive.url})
            assert (status, answer["error"]["code"]) == (503, "credentials"), answer
            token.write_text("hunter3\n")
            assert statuses(result_of(server, images.request, {"dicomweb": archive.url})) == ["stored"]
        time.sleep(0.2)
        assert not [line for line in server.log if "hunter" in line]
        audit = [json.loads(line) for line in server.log if '"target":"audit"' in line]
        assert audit[0]["output_archive"] == f"{other.url} stored"


def test_without_an_archive_that_can_be_asked_nothing_else_is_lost(images, model, ahi, tmp_path):
    with StandIn() as gone:
        pass
    out = tmp_path / "out"
    with serve(model, ahi.address, STORE=gone.url, OUTPUT_S3_URI=f"file://{out}") as server:
        status, _, body = post(server.address, images.request)
        error = json.loads(body)["error"]
        assert (status, error["code"]) == (502, "upstream"), error
        assert "in S3 all the same" in error["message"]
        [file] = out.rglob("*.dcm")
        assert pydicom.dcmread(file).SOPClassUID == SEGMENTATION
