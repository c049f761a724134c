"""Everything that a request creates goes back into the study it came from: the local HealthImaging, and Orthanc.

One request creates every DICOM output of one result and stores them. Every interface finds them there, they are
the same as what was created, and repeating the request adds nothing.
"""

import gzip
import hashlib
import io
import json
import urllib.request

import boto3
import numpy as np
import pydicom
import pytest
from botocore.config import Config

import tiny
from archives import MISSING, Orthanc
from local import emulate, open_url, post, serve

KINDS = ["dicom-seg", "dicom-seg-labelmap", "dicom-sr", "rtstruct", "secondary-capture"]
MODALITIES = {"dicom-seg": "SEG", "dicom-seg-labelmap": "SEG", "dicom-sr": "SR", "rtstruct": "RTSTRUCT",
              "secondary-capture": "OT"}
SIGNED = {"Authorization": "AWS4-HMAC-SHA256"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.bands_bundle(tmp_path_factory.mktemp("model") / "bundle", [2, 6, 10])


@pytest.fixture(scope="module")
def bucket(images):
    folder = images.store / "s3" / "results"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def ahi(images, bucket):
    with emulate(images.store) as running:
        running.s3 = running.next_address()
        yield running


def asked(server, body, **more):
    status, _, answer = post(server.address, body | {"outputs": KINDS + ["preview", "stl"]} | more)
    assert status == 200, answer
    [result] = json.loads(answer)["results"]
    return result


def made(result, bucket):
    """The outputs as written outside the archive, by UID."""
    files = {}
    for output in result["outputs"]:
        if output["mediaType"] == "application/dicom":
            path = bucket / output["uri"].removeprefix("s3://results/")
            assert path.name == output["fileName"] and path.parent.parent == bucket / "made"
            data = path.read_bytes()
            assert hashlib.sha256(data).hexdigest() == output["sha256"]
            files[pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID] = (output["kind"], data)
    assert [kind for kind, _ in files.values()] == KINDS
    return files


def check_kept(kind, kept, data):
    """Byte for byte if the archive keeps the transfer syntax, else the same attributes and pixels."""
    if kept == data:
        return "bytes"
    a, b = pydicom.dcmread(io.BytesIO(kept)), pydicom.dcmread(io.BytesIO(data))
    assert a.file_meta.TransferSyntaxUID != b.file_meta.TransferSyntaxUID, kind
    if "PixelData" in b:
        assert np.array_equal(a.pixel_array, b.pixel_array), kind
    for attribute in b:
        if attribute.keyword not in ("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
            assert a.get(attribute.tag) is not None and a[attribute.tag].value == attribute.value, (kind, attribute.tag)
    return "attributes"


def test_everything_goes_back_into_healthimaging(images, ahi, model, bucket):
    datastore = images.request["datastoreId"]
    client = boto3.client(
        "medical-imaging", endpoint_url=ahi.address, region_name="us-east-1", aws_access_key_id="test",
        aws_secret_access_key="test", config=Config(inject_host_prefix=False),
    )

    def searched(series):
        criteria = {"filters": [{"values": [{"DICOMSeriesInstanceUID": series}], "operator": "EQUAL"}]}
        return client.search_image_sets(datastoreId=datastore, searchCriteria=criteria)["imageSetsMetadataSummaries"]

    def web(path, accept):
        request = urllib.request.Request(f"{ahi.address}/datastore/{datastore}{path}", headers=SIGNED | {"Accept": accept})
        status, _, body = open_url(request)
        assert status == 200, body
        return body

    wanted = images.request | {"store": True, "outputS3Uri": "s3://results/made",
                               "segmentation": {"transferSyntax": "native"}}
    with serve(model, ahi.address, S3_ENDPOINT_URL=ahi.s3, S3_PATH_STYLE="true") as server:
        result = asked(server, wanted)
        files = made(result, bucket)
        again = asked(server, wanted)
    stored = {one["sopInstanceUID"]: one for one in result["store"]["instances"]}
    assert {uid: one["kind"] for uid, one in stored.items()} == {uid: kind for uid, (kind, _) in files.items()}
    assert {one["status"] for one in stored.values()} == {"stored"}, stored
    assert {one["status"] for one in again["store"]["instances"]} == {"already"}, again["store"]
    assert again["store"]["imageSets"] == result["store"]["imageSets"] and len(result["store"]["imageSets"]) == len(KINDS)

    # By QIDO-RS, the study has one more series for each output, with one instance.
    study = result["studyInstanceUID"]
    series = json.loads(web(f"/studies/{study}/series", "application/dicom+json"))
    found = {one["0020000E"]["Value"][0]: one["00080060"]["Value"][0] for one in series}
    kinds = {}
    for uid, (kind, data) in files.items():
        here = stored[uid]["seriesInstanceUID"]
        assert found.pop(here) == MODALITIES[kind]
        # By SearchImageSets and boto3.
        [image_set] = searched(here)
        assert image_set["isPrimary"] is True and image_set["DICOMTags"]["DICOMStudyInstanceUID"] == study
        assert {"imageSetId": image_set["imageSetId"], "isPrimary": True, "seriesInstanceUID": here} in result["store"]["imageSets"]
        blob = client.get_image_set_metadata(datastoreId=datastore, imageSetId=image_set["imageSetId"])
        document = json.loads(gzip.decompress(blob["imageSetMetadataBlob"].read()))
        assert list(document["Study"]["Series"][here]["Instances"]) == [uid]
        # By WADO-RS.
        kept = web(f"/studies/{study}/series/{here}/instances/{uid}", "application/dicom; transfer-syntax=*"
                   if kind != "dicom-seg-labelmap" else "application/dicom; transfer-syntax=1.2.840.10008.1.2.1")
        kinds[kind] = check_kept(kind, kept, data)
    print(kinds)
    assert list(found) == [result["seriesInstanceUID"]], "nothing else is in the study"
    for kind in ("dicom-seg", "dicom-seg-labelmap", "dicom-sr", "secondary-capture"):
        assert kinds[kind] == "bytes", kinds
    # All outputs refer to the same segments.
    binary, label_map, report, structures, _ = (pydicom.dcmread(io.BytesIO(data)) for _, data in files.values())
    tracking = [segment.TrackingUID for segment in binary.SegmentSequence]
    assert tracking == [s.TrackingUID for s in label_map.SegmentSequence if "TrackingUID" in s]
    text = str(report)
    assert all(uid in text for uid in tracking) and binary.SOPInstanceUID in text
    assert len(structures.StructureSetROISequence) == len(tracking)
    assert {d.FrameOfReferenceUID for d in (binary, label_map)} == {
        structures.StructureSetROISequence[0].ReferencedFrameOfReferenceUID}


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_everything_goes_into_orthanc(images, ahi, model, bucket, tmp_path):
    with Orthanc(tmp_path) as orthanc:
        user = {"DICOMWEB_USER": orthanc.USER, "DICOMWEB_PASSWORD": orthanc.PASSWORD, "STORE": orthanc.url}
        with serve(model, ahi.address, S3_ENDPOINT_URL=ahi.s3, S3_PATH_STYLE="true", **user) as server:
            wanted = images.request | {"outputS3Uri": "s3://results/made"}
            result = asked(server, wanted)
            files = made(result, bucket)
            again = asked(server, wanted)
        assert {one["status"] for one in result["store"]["instances"]} == {"stored"}, result["store"]
        assert {one["status"] for one in again["store"]["instances"]} == {"already"}, again["store"]
        study = result["studyInstanceUID"]
        stored = {one["sopInstanceUID"]: one["seriesInstanceUID"] for one in result["store"]["instances"]}
        assert orthanc.instances(study) == sorted((series, uid) for uid, series in stored.items())
        for uid, (kind, data) in files.items():
            assert orthanc.instance(study, stored[uid], uid) == data, kind
