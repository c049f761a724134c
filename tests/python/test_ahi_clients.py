"""Real clients of AWS HealthImaging against the local one: boto3, and the connector that this project replaces."""

import copy
import gzip
import json
import signal
import zipfile
import zlib

import boto3
import numpy as np
import pydicom
import pytest
from botocore.config import Config

from local import SHARED, emulate, import_dicom, run

CRANIUM = SHARED / "data/cranium_ct_dicom.zip"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder of DICOM files: the head CT of the reference material if it is there, else a phantom."""
    folder = tmp_path_factory.mktemp("sources")
    if CRANIUM.exists():
        with zipfile.ZipFile(CRANIUM) as archive:
            archive.extractall(folder)
        return folder
    print(f"skipped the head CT: {CRANIUM} is not there; a phantom stands in")
    run("phantom", "--out", folder / "phantom", "--size", 64, "--slices", 20)
    return folder / "phantom/dicom"


@pytest.fixture(scope="module")
def originals(sources):
    files = [pydicom.dcmread(path) for path in sources.rglob("*") if path.is_file()]
    return {file.SOPInstanceUID: file for file in files}


@pytest.fixture
def ahi(sources, tmp_path):
    request = import_dicom(sources, tmp_path / "store")
    with emulate(tmp_path / "store") as running:
        yield running, request


def client_of(running, **config):
    return boto3.client(
        "medical-imaging", endpoint_url=running.address, region_name="us-east-1",
        aws_access_key_id="x", aws_secret_access_key="x",
        config=Config(inject_host_prefix=False, retries={"max_attempts": 1}, **config),
    )


def metadata_of(client, ids):
    answer = client.get_image_set_metadata(**ids)
    return json.loads(gzip.decompress(answer["imageSetMetadataBlob"].read()))


def test_data_stores(ahi):
    client = client_of(ahi[0])
    made = client.create_datastore(datastoreName="another", clientToken="t")
    assert made["datastoreStatus"] == "ACTIVE"
    properties = client.get_datastore(datastoreId=made["datastoreId"])["datastoreProperties"]
    assert properties["datastoreName"] == "another" and properties["createdAt"].year >= 2024
    names = {d["datastoreId"] for page in client.get_paginator("list_datastores").paginate(PaginationConfig={"PageSize": 1})
             for d in page["datastoreSummaries"]}
    assert names == {made["datastoreId"], ahi[1]["datastoreId"]}
    assert client.delete_datastore(datastoreId=made["datastoreId"])["datastoreStatus"] == "DELETED"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_datastore(datastoreId=made["datastoreId"])
    with pytest.raises(client.exceptions.ConflictException):
        client.delete_datastore(datastoreId=ahi[1]["datastoreId"])


def test_pixels_and_metadata_are_the_sources(ahi, originals):
    running, ids = ahi
    client = client_of(running)
    assert client.get_image_set(**ids)["imageSetState"] == "ACTIVE"
    document = metadata_of(client, ids)
    assert document["DatastoreID"] == ids["datastoreId"] and document["ImageSetID"] == ids["imageSetId"]
    [(series_uid, series)] = document["Study"]["Series"].items()
    assert set(series["Instances"]) == set(originals)
    from openjpeg import decode

    for uid, instance in list(series["Instances"].items())[::9]:
        original = originals[uid]
        assert original.SeriesInstanceUID == series_uid
        attributes = instance["DICOM"]
        assert [float(v) for v in attributes["ImagePositionPatient"]] == list(original.ImagePositionPatient)
        assert attributes["Rows"] == original.Rows
        [frame] = instance["ImageFrames"]
        data = client.get_image_frame(**ids, imageFrameInformation={"imageFrameId": frame["ID"]})
        assert data["contentType"] == "image/jph"
        encoded = data["imageFrameBlob"].read()
        assert len(encoded) == frame["FrameSizeInBytes"]
        pixels = decode(encoded).astype(original.pixel_array.dtype)
        assert np.array_equal(pixels, original.pixel_array)
        checksum = frame["PixelDataChecksumFromBaseToFullResolution"][-1]
        assert (checksum["Width"], checksum["Height"]) == (original.Columns, original.Rows)
        assert zlib.crc32(original.pixel_array.tobytes()) == checksum["Checksum"]
        assert (frame["MinPixelValue"], frame["MaxPixelValue"]) == (pixels.min(), pixels.max())


def test_search(ahi, originals):
    running, ids = ahi
    client = client_of(running)
    any_original = next(iter(originals.values()))

    def search(**criteria):
        found = client.search_image_sets(datastoreId=ids["datastoreId"], searchCriteria=criteria)
        return [s["imageSetId"] for s in found["imageSetsMetadataSummaries"]]

    def equal(**value):
        return search(filters=[{"operator": "EQUAL", "values": [value]}])

    assert equal(DICOMStudyInstanceUID=any_original.StudyInstanceUID) == [ids["imageSetId"]]
    assert equal(DICOMSeriesInstanceUID=any_original.SeriesInstanceUID) == [ids["imageSetId"]]
    assert equal(DICOMStudyInstanceUID="1.2.3") == []
    assert equal(isPrimary=True) == [ids["imageSetId"]]
    assert search(sort={"sortField": "updatedAt", "sortOrder": "DESC"}) == [ids["imageSetId"]]
    with pytest.raises(client.exceptions.ValidationException):
        search(filters=[{"operator": "BETWEEN", "values": [{"DICOMPatientId": "a"}]}])


def test_a_second_import_is_another_version(ahi, sources, tmp_path):
    running, ids = ahi
    store = ("--folder", tmp_path / "store", "--datastore", ids["datastoreId"])
    [again] = json.loads(run("import", sources, *store))["imageSets"]
    assert (again["imageSetId"], again["version"], again["isPrimary"]) == (ids["imageSetId"], 2, True)
    client = client_of(running)
    before, after = (client.get_image_set_metadata(**ids, versionId=v)["imageSetMetadataBlob"].read() for v in "12")
    assert before != after and client.get_image_set(**ids)["versionId"] == "2"
    versions = client.list_image_set_versions(**ids)["imageSetPropertiesList"]
    assert [v["ImageSetWorkflowStatus"] for v in versions] == ["IMPORTED", "CREATED"]


def test_what_conflicts_is_not_primary(ahi, originals, tmp_path):
    running, ids = ahi
    other = tmp_path / "other"
    other.mkdir()
    for index, original in enumerate(list(originals.values())[:3]):
        changed = copy.deepcopy(original)
        changed.PatientID = "another"
        changed.save_as(other / f"{index}.dcm")
    store = ("--folder", tmp_path / "store", "--datastore", ids["datastoreId"])
    [second] = json.loads(run("import", other, *store))["imageSets"]
    assert second["isPrimary"] is False and second["imageSetId"] != ids["imageSetId"]
    client = client_of(running)
    assert client.get_image_set(datastoreId=ids["datastoreId"], imageSetId=second["imageSetId"])["isPrimary"] is False


def test_deletion_and_errors(ahi):
    running, ids = ahi
    client = client_of(running)
    missing = "0" * 32
    for call in (client.get_image_set, client.get_image_set_metadata, client.list_image_set_versions):
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            call(datastoreId=ids["datastoreId"], imageSetId=missing)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_image_frame(**ids, imageFrameInformation={"imageFrameId": missing})
    assert len(client.list_image_set_versions(**ids)["imageSetPropertiesList"]) == 1
    assert client.delete_image_set(**ids)["imageSetState"] == "DELETED"
    assert client.get_image_set(**ids)["imageSetState"] == "DELETED"
    assert [v["versionId"] for v in client.list_image_set_versions(**ids)["imageSetPropertiesList"]] == ["2", "1"]
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_image_set_metadata(**ids)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.copy_image_set(datastoreId=ids["datastoreId"], sourceImageSetId=ids["imageSetId"],
                              copyImageSetInformation={"sourceImageSet": {"latestVersionId": "1"}})


def test_ahi_to_dicom_interface(ahi, originals, monkeypatch):
    """The connector that this project replaces, unchanged; a variable keeps `runtime-` off the host name."""
    from AHItoDICOMInterface.AHItoDICOM import AHItoDICOM

    monkeypatch.setenv("AWS_DISABLE_HOST_PREFIX_INJECTION", "true")
    # Keys passed as arguments do not reach its processes intact; the environment does.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    running, ids = ahi
    connector = AHItoDICOM(AHI_endpoint=running.address, fetcher_process_count=2, dicomizer_process_count=2)
    # It waits forever for a frame that one of its processes failed to fetch.
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("AHItoDICOMInterface did not finish"))
    signal.alarm(120)
    made = connector.DICOMizeImageSet(datastore_id=ids["datastoreId"], image_set_id=ids["imageSetId"])
    signal.alarm(0)
    assert {file.SOPInstanceUID for file in made} == set(originals)
    for file in made:
        original = originals[file.SOPInstanceUID]
        assert np.array_equal(file.pixel_array, original.pixel_array)
        assert list(file.ImagePositionPatient) == list(original.ImagePositionPatient)
        assert file.PatientID == original.PatientID


def test_unsigned_requests_are_refused(ahi):
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{ahi[0].address}/datastore")
    assert refused.value.code == 403
    assert refused.value.headers["x-amzn-errortype"] == "AccessDeniedException"
