"""Inputs other than image sets: studies, S3 (moto's server), archives, bodies, requests in S3, JSON Lines."""

import base64
import hashlib
import io
import json
import tarfile
import zipfile

import boto3
import pydicom
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from local import ROOT, emulate, get, import_dicom, post, run, serve

BUCKET = "images"


@pytest.fixture(scope="module")
def s3():
    """Moto's S3, and a client for it."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", aws_access_key_id="test",
        aws_secret_access_key="test", config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket=BUCKET)
    yield client
    server.stop()


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A phantom's DICOM files, the store they were imported into, and the request for the image set."""
    folder = tmp_path_factory.mktemp("phantom")
    run("phantom", "--out", folder / "phantom", "--size", 96, "--slices", 64)
    request = import_dicom(folder / "phantom/dicom", folder / "store")
    return sorted((folder / "phantom/dicom").rglob("*.dcm")), folder / "store", request


@pytest.fixture(scope="module")
def server(phantom, s3):
    with emulate(phantom[1]) as ahi, serve(
        ROOT / "model/ct_phantom", ahi.address, S3_ENDPOINT_URL=s3.meta.endpoint_url, S3_PATH_STYLE="true",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def voxels(phantom, server):
    """The segments' voxels in the answer for the image set itself."""
    return voxels_of(post(server.address, phantom[2]))


def voxels_of(answer):
    status, _, body = answer
    assert status == 200, body
    [result] = json.loads(body)["results"]
    return [segment["voxels"] for segment in result["segments"]]


def error_of(answer):
    status, _, body = answer
    error = json.loads(body)["error"]
    return status, error["code"], error["message"]


def zip_of(files, names=None):
    """The DICOM files in a zip archive, not in slice order, with another file next to them."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", "not an image")
        for index, file in enumerate(reversed(files)):
            archive.writestr(names(index) if names else f"study/{file.name}", file.read_bytes())
    return memory.getvalue()


def tar_of(files, mode):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode=mode) as archive:
        for file in files:
            archive.add(file, arcname=f"DOE^JANE/{file.name}")
    return memory.getvalue()


def put(s3, key, data):
    s3.put_object(Bucket=BUCKET, Key=key, Body=data)
    return f"s3://{BUCKET}/{key}"


def test_every_place_gives_the_same(phantom, server, s3, voxels):
    files, _, image_set = phantom
    assert sum(voxels) > 1000
    for file in files:
        put(s3, f"series/dicom/{file.name}", file.read_bytes())
    put(s3, "series/dicom/notes.txt", b"not an image")
    put(s3, "series/dicom-other/file", b"what only begins alike is not below the prefix")
    places = [
        f"s3://{BUCKET}/series/dicom/",
        f"s3://{BUCKET}/series/dicom",
        put(s3, "a.zip", zip_of(files)),
        put(s3, "a.tar", tar_of(files, "w")),
        put(s3, "a.tar.gz", tar_of(files, "w:gz")),
        put(s3, "without-an-ending", zip_of(files)),
    ]
    for uri in places:
        assert voxels_of(post(server.address, {"s3Uri": uri})) == voxels, uri
        answer = json.loads(post(server.address, {"inputs": [{"s3Uri": uri}]})[2])
        assert answer["results"][0]["input"] == {"s3Uri": uri}
    uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    study = {"datastoreId": image_set["datastoreId"], "studyInstanceUID": uid}
    assert voxels_of(post(server.address, study)) == voxels
    for content_type, body in [
        ("application/zip", zip_of(files)), ("application/x-tar", tar_of(files, "w")),
        ("application/gzip", tar_of(files, "w:gz")), ("application/octet-stream", zip_of(files)),
    ]:
        assert voxels_of(post(server.address, body, Content_Type=content_type)) == voxels, content_type


def test_a_large_archive_is_read_in_ranges(phantom, server, s3, voxels):
    """Larger than several blocks, with the images behind data that does not compress."""
    import random

    memory = io.BytesIO(zip_of(phantom[0]))
    with zipfile.ZipFile(memory, "a") as archive:
        archive.writestr("raw.bin", random.Random(1).randbytes(40 << 20))
        for index, file in enumerate(phantom[0][:1]):
            archive.writestr(f"again/{index}.txt", file.read_bytes()[200:])
    uri = put(s3, "large.zip", memory.getvalue())
    assert voxels_of(post(server.address, {"s3Uri": uri})) == voxels


def test_the_answer_is_written_to_s3(phantom, server, s3):
    request = {"s3Uri": put(s3, "b.zip", zip_of(phantom[0])), "outputS3Uri": f"s3://{BUCKET}/out"}
    status, _, body = post(server.address, request)
    assert status == 200, body
    [output] = json.loads(body)["results"][0]["outputs"]
    stored = s3.get_object(Bucket=BUCKET, Key=output["uri"].removeprefix(f"s3://{BUCKET}/"))["Body"].read()
    assert hashlib.sha256(stored).hexdigest() == output["sha256"]
    assert pydicom.dcmread(io.BytesIO(stored)).Modality == "SEG"


def test_requests_in_s3(phantom, server, s3, voxels):
    inner = {"inputs": [phantom[2]], "outputs": ["nifti"]}
    uri = put(s3, "request.json", json.dumps(inner).encode())
    status, _, body = post(server.address, {"s3Uri": uri})
    assert status == 200, body
    assert json.loads(body)["results"][0]["outputs"][0]["kind"] == "nifti"
    status, _, body = post(server.address, {"s3Uri": uri, "outputs": ["dicom-seg"]})
    assert json.loads(body)["results"][0]["outputs"][0]["kind"] == "dicom-seg"
    for name, content in [("broken.json", b"{"), ("again.json", json.dumps({"s3Uri": uri}).encode())]:
        status, code, _ = error_of(post(server.address, {"s3Uri": put(s3, name, content)}))
        assert (status, code) == (400, "invalid_request"), name


def test_several_series(phantom, server, s3, voxels, tmp_path):
    """A second series and a report next to the first: the report does not count, and the series must be chosen."""
    files = phantom[0]
    others = []
    for index, file in enumerate(files[:8]):
        other = pydicom.dcmread(file)
        other.SeriesInstanceUID += ".7"
        other.SOPInstanceUID += ".7"
        other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID
        other.save_as(tmp_path / f"{index}.dcm")
        others.append(tmp_path / f"{index}.dcm")
    report = pydicom.dcmread(files[0])
    report.SeriesInstanceUID += ".8"
    report.SOPInstanceUID += ".8"
    report.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID
    report.Modality = "SEG"
    report.save_as(tmp_path / "report.dcm")
    uri = put(s3, "with-report.zip", zip_of([*files, tmp_path / "report.dcm"]))
    assert voxels_of(post(server.address, {"s3Uri": uri})) == voxels
    uri = put(s3, "two.zip", zip_of([*files, *others], names=lambda index: f"{index}"))
    status, code, message = error_of(post(server.address, {"s3Uri": uri}))
    assert (status, code) == (400, "invalid_request") and "seriesInstanceUID" in message, message
    uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)
    assert voxels_of(post(server.address, {"s3Uri": uri, "seriesInstanceUID": uid})) == voxels
    status, code, message = error_of(post(server.address, {"s3Uri": uri, "seriesInstanceUID": "1.2.3"}))
    assert (status, code) == (404, "not_found"), message


def hostile_zip(names):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return memory.getvalue()


def link_tar():
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        link = tarfile.TarInfo("DOE^JANE")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return memory.getvalue()


def bomb():
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        # It starts like a DICOM file: anything else would not even be expanded.
        archive.writestr("zeros", bytes(128) + b"DICM" + bytes(200 << 20))
    return memory.getvalue()


def test_bad_inputs(phantom, server, s3, voxels, tmp_path):
    files = phantom[0]
    cut = zip_of(files)
    # Copies of an instance are read once; two different instances with one UID are not copies.
    copies = zip_of([*files, files[0]], names=lambda index: f"{index}")
    answer = post(server.address, {"s3Uri": put(s3, "copies.zip", copies)})
    assert voxels_of(answer) == voxels
    assert "same instance" in str(json.loads(answer[2])["results"][0]["warnings"])
    other = tmp_path / "other.dcm"
    data = pydicom.dcmread(files[0])
    data.ImageComments = "another"
    data.save_as(other)
    twice = zip_of([*files, other], names=lambda index: f"{index}")
    expected = {
        "none": (f"s3://{BUCKET}/nothing-here", 404), "no-bucket": ("s3://no-such-bucket/a", 404),
        "text": (put(s3, "text", b"Doe^Jane"), 400), "json": (put(s3, "json-without-ending", b"{}"), 400),
        "cut": (put(s3, "cut.zip", cut[: len(cut) // 2]), 400),
        "cut tar": (put(s3, "cut.tgz", tar_of(files, "w:gz")[:20000]), 400),
        "upwards": (put(s3, "up.zip", hostile_zip(["../../etc/DOE^JANE"])), 400),
        "absolute": (put(s3, "absolute.zip", hostile_zip(["/etc/DOE^JANE"])), 400),
        "link": (put(s3, "link.tar", link_tar()), 400), "bomb": (put(s3, "bomb.zip", bomb()), 400),
        "twice": (put(s3, "twice.zip", twice), 422), "empty": (put(s3, "empty.zip", hostile_zip([])), 422),
        "cut DICOM": (put(s3, "cut.dcm", files[0].read_bytes()[:900]), 422),
        "an empty object": (put(s3, "nothing", b""), 400),
    }
    for name, (uri, status) in expected.items():
        found, code, message = error_of(post(server.address, {"s3Uri": uri}))
        print(f"{name}: {found} {code}: {message}")
        assert found == status, (name, message)
        assert "DOE" not in message.upper() and uri not in message
    for body in (b"", b"Doe^Jane", b"{}", cut[:1000], bomb()):
        assert error_of(post(server.address, body, Content_Type="application/zip"))[0] == 400
    assert error_of(post(server.address, b"x", Content_Type="text/plain"))[0] == 415
    assert voxels_of(post(server.address, phantom[2])) == voxels
    log = "".join(server.log).upper()
    assert "DOE" not in log and "SERIES/DICOM" not in log


def test_json_lines(phantom, server, voxels):
    good, bad = json.dumps(phantom[2]), json.dumps({"datastoreId": "x"})
    missing = json.dumps(phantom[2] | {"imageSetId": "0" * 32})
    body = "\r\n".join([good, bad, "not JSON", "", missing, good]).encode() + b"\n"
    status, headers, answer = post(server.address, body, Content_Type="application/jsonlines")
    assert status == 200 and headers["content-type"] == "application/jsonlines", answer
    lines = [json.loads(line) for line in answer.decode().splitlines()]
    assert len(lines) == 6
    codes = [line["error"]["code"] if "error" in line else None for line in lines]
    assert codes == [None, "invalid_request", "invalid_request", "invalid_request", "not_found", None]
    assert [line["requestId"].rsplit("-", 1)[1] for line in lines] == [str(n) for n in range(1, 7)]
    for line in (lines[0], lines[5]):
        assert [segment["voxels"] for segment in line["results"][0]["segments"]] == voxels
        assert base64.b64decode(line["results"][0]["outputs"][0]["data"])[128:132] == b"DICM"
    assert post(server.address, b"\n", Content_Type="application/jsonlines")[0] == 400


def test_execution_parameters(server):
    status, _, body = get(f"{server.address}/execution-parameters")
    found = json.loads(body)
    assert status == 200 and set(found) == {"MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB"}
    assert found["MaxConcurrentTransforms"] * found["MaxPayloadInMB"] <= 100
