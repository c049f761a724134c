"""DICOMweb of the local HealthImaging, with third-party clients: dicomweb-client, boto3, requests."""

import gzip
import json
import socket
import time

import boto3
import highdicom as hd
import numpy as np
import pydicom
import pytest
import requests
from botocore.config import Config
from dicomweb_client import DICOMwebClient
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from dicomweb_cases import encoded, of_study, report, screenshot, segmentation
from local import emulate, run
from signed import session

HTJ2K = "1.2.840.10008.1.2.4.202"
JSON = {"Accept": "application/dicom+json"}


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "p"
    run("phantom", "--out", folder, "--size", 64, "--slices", 6)
    read = [pydicom.dcmread(path) for path in (folder / "dicom").iterdir()]
    return sorted(read, key=lambda one: int(one.InstanceNumber))


class Cloud:
    """The local HealthImaging with an empty data store, and its clients."""

    def __init__(self, running):
        self.address = running.address
        self.s3 = boto3.client(
            "s3", endpoint_url=running.next_address(), region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test", config=Config(s3={"addressing_style": "path"}),
        )
        self.ahi = boto3.client(
            "medical-imaging", endpoint_url=running.address, region_name="us-east-1",
            aws_access_key_id="test", aws_secret_access_key="test",
            config=Config(inject_host_prefix=False, retries={"max_attempts": 1}),
        )
        self.http = session()
        self.use(self.ahi.create_datastore(datastoreName="web")["datastoreId"])

    def use(self, datastore):
        self.datastore = datastore
        self.url = f"{self.address}/datastore/{datastore}"
        # The client changes its session's headers: Host loses its port.
        self.web = DICOMwebClient(self.url, session=session())

    def store(self, *files, study=None, accept="application/dicom+json"):
        """Stores files as the parts of one request."""
        body = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files)
        return self.http.post(
            f"{self.url}/studies" + (f"/{study}" if study else ""), data=body + b"--b--\r\n",
            headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=b', "Accept": accept},
        )

    def path(self, dataset):
        return (f"{self.url}/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
                f"/instances/{dataset.SOPInstanceUID}")

    def file(self, dataset, accept="application/dicom; transfer-syntax=*", **query):
        return self.http.get(self.path(dataset), headers={"Accept": accept}, params=query)

    def sets(self, **value):
        criteria = {"filters": [{"operator": "EQUAL", "values": [value]}]} if value else {}
        return self.ahi.search_image_sets(datastoreId=self.datastore, searchCriteria=criteria)["imageSetsMetadataSummaries"]

    def ids(self, dataset):
        [found] = self.sets(DICOMSeriesInstanceUID=dataset.SeriesInstanceUID)
        return {"datastoreId": self.datastore, "imageSetId": found["imageSetId"]}

    def document(self, ids, **version):
        answer = self.ahi.get_image_set_metadata(**ids, **version)
        return json.loads(gzip.decompress(answer["imageSetMetadataBlob"].read()))


@pytest.fixture
def cloud(tmp_path):
    with emulate(tmp_path / "cloud") as running:
        yield Cloud(running)


def test_what_is_stored_is_found(cloud, slices):
    stored = cloud.web.store_instances(slices)
    assert len(stored.ReferencedSOPSequence) == 6 and "FailedSOPSequence" not in stored
    assert stored.RetrieveURL.endswith(f"/studies/{slices[0].StudyInstanceUID}")
    seg = segmentation(slices, hd.seg.SegmentationTypeValues.BINARY)
    cloud.web.store_instances([seg], slices[0].StudyInstanceUID)
    [study] = cloud.web.search_for_studies(search_filters={"PatientID": slices[0].PatientID})
    assert study["00201206"]["Value"] == [2] and study["00201208"]["Value"] == [7]
    assert set(study["00080061"]["Value"]) == {slices[0].Modality, "SEG"}
    series = cloud.web.search_for_series(study["0020000D"]["Value"][0])
    assert [one["0020000E"]["Value"][0] for one in series] == [slices[0].SeriesInstanceUID, seg.SeriesInstanceUID]
    found = cloud.web.search_for_instances(slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID)
    assert [one["00080018"]["Value"][0] for one in found] == [one.SOPInstanceUID for one in slices]
    ids = cloud.ids(seg)
    answer = cloud.ahi.get_image_set(**ids)
    assert answer["isPrimary"] and answer["versionId"] == "1" and answer["imageSetState"] == "ACTIVE"
    document = cloud.document(ids)
    [instance] = document["Study"]["Series"][seg.SeriesInstanceUID]["Instances"].values()
    assert instance["StoredTransferSyntaxUID"] == ExplicitVRLittleEndian
    assert len(instance["ImageFrames"]) == seg.NumberOfFrames


def test_the_same_again_adds_nothing(cloud, slices):
    for expected in ("1", "2"):
        assert cloud.store(*map(encoded, slices)).status_code == 200
        [only] = cloud.sets()
        assert cloud.ahi.get_image_set(**cloud.ids(slices[0]))["versionId"] == expected
        assert only["DICOMTags"]["DICOMNumberOfStudyRelatedInstances"] == 6
    # Stored one by one, they are the same image set, too.
    cloud.store(encoded(slices[0]))
    assert cloud.ahi.get_image_set(**cloud.ids(slices[0]))["versionId"] == "3"
    assert len(cloud.web.search_for_instances()) == 6
    assert cloud.file(slices[0], "application/dicom").content == encoded(slices[0])


def test_instances_come_back_byte_for_byte(cloud, slices):
    kinds = hd.seg.SegmentationTypeValues
    retained = [segmentation(slices, kinds.BINARY), report(slices[0]), screenshot(slices[0])]
    transcoded = [slices[2], segmentation(slices, kinds.LABELMAP)]
    assert cloud.store(*map(encoded, retained + transcoded)).status_code == 200
    for one in retained:
        for accept in ("application/dicom; transfer-syntax=*", "application/dicom", "*/*"):
            answer = cloud.file(one, accept)
            assert answer.headers["Content-Type"] == f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
            assert answer.content == encoded(one), (one.Modality, accept)
    for one in transcoded:
        assert cloud.file(one, f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}").content == encoded(one)
        stored = pydicom.dcmread(pydicom.filebase.DicomBytesIO(cloud.file(one).content))
        assert stored.file_meta.TransferSyntaxUID == HTJ2K and stored.SOPInstanceUID == one.SOPInstanceUID
        lossless = cloud.file(one, f"application/dicom; transfer-syntax={JPEG2000Lossless}").content
        lossless = pydicom.dcmread(pydicom.filebase.DicomBytesIO(lossless))
        assert np.array_equal(lossless.pixel_array, one.pixel_array)
        assert cloud.file(one, "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50").status_code == 406
        as_a_part = cloud.web.retrieve_instance(
            one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID,
            media_types=(("application/dicom", ExplicitVRLittleEndian),),
        )
        assert np.array_equal(as_a_part.pixel_array, one.pixel_array)


def test_frames(cloud, slices):
    # Frames of 63 × 63 bits do not end on a byte boundary.
    odd = [pydicom.dcmread(pydicom.filebase.DicomBytesIO(encoded(one))) for one in slices]
    series = generate_uid()
    for one in odd:
        one.PixelData = one.pixel_array[:63, :63].tobytes() + b"\0" * (63 * 63 * 2 % 2)
        one.Rows = one.Columns = 63
        one.SeriesInstanceUID, one.SOPInstanceUID = series, generate_uid()
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    seg = segmentation(odd, hd.seg.SegmentationTypeValues.BINARY)
    assert cloud.store(*map(encoded, [slices[0], seg])).status_code == 200
    of = (slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID, slices[0].SOPInstanceUID)
    [frame] = cloud.web.retrieve_instance_frames(*of, [1], media_types=(("application/octet-stream", ExplicitVRLittleEndian),))
    assert frame == slices[0].pixel_array.tobytes()
    [frame] = cloud.web.retrieve_instance_frames(*of, [1], media_types=(("image/jp2", JPEG2000Lossless),))
    from openjpeg import decode
    assert np.array_equal(decode(frame), slices[0].pixel_array)
    answer = cloud.http.get(f"{cloud.path(slices[0])}/frames/1", headers={"Accept": 'multipart/related; type="image/jphc"'})
    head, frame = answer.content.split(b"\r\n\r\n", 1)
    assert f"image/jphc; transfer-syntax={HTJ2K}".encode() in head
    frame = frame[:frame.rindex(b"\r\n--part-")]
    assert np.array_equal(decode(frame), slices[0].pixel_array)
    numbers = list(range(seg.NumberOfFrames, 0, -1))
    frames = cloud.web.retrieve_instance_frames(seg.StudyInstanceUID, seg.SeriesInstanceUID, seg.SOPInstanceUID, numbers)
    for number, frame in zip(numbers, frames):
        bits = np.unpackbits(np.frombuffer(frame, np.uint8), bitorder="little")[:63 * 63].reshape(63, 63)
        assert np.array_equal(bits, seg.pixel_array[number - 1])
    for path, accept, status in [("frames/2", "*/*", 404), ("frames/0", "*/*", 400), ("frames/1,1", "*/*", 400),
                                 ("frames/1", "image/png", 406)]:
        assert cloud.http.get(f"{cloud.path(slices[0])}/{path}", headers={"Accept": accept}).status_code == status


def test_metadata_and_bulk_data(cloud, slices):
    private = pydicom.dcmread(pydicom.filebase.DicomBytesIO(encoded(slices[1])))
    block = private.private_block(0x0019, "tests", create=True)
    block.add_new(0x01, "OB", b"ab" * 600_000)
    block.add_new(0x02, "LO", "small")
    cloud.store(encoded(slices[0]), encoded(private))
    of = (private.StudyInstanceUID, private.SeriesInstanceUID)
    series = [pydicom.Dataset.from_json(one) for one in cloud.web.retrieve_series_metadata(*of)]
    assert {one.SOPInstanceUID for one in series} == {slices[0].SOPInstanceUID, private.SOPInstanceUID}
    [one] = [one for one in series if one.SOPInstanceUID == slices[0].SOPInstanceUID]
    for element in slices[0]:
        if element.keyword != "PixelData":
            assert one[element.tag].value == element.value, element.keyword
    metadata = cloud.web.retrieve_instance_metadata(*of, private.SOPInstanceUID)
    assert metadata["00191002"] == {"vr": "LO", "Value": ["small"]} and "7FE00010" not in metadata
    [metadata] = cloud.http.get(f"{cloud.path(private)}/metadata", headers=JSON).json()
    url = metadata["00191001"]["BulkDataURI"]
    assert cloud.http.get(url, headers={"Accept": "application/octet-stream"}).content == b"ab" * 600_000
    assert cloud.http.get(f"{url}0").status_code == 404
    assert cloud.http.get(f"{cloud.path(private)}/metadata", headers={"Accept": "text/html"}).status_code == 406


def test_searches(cloud, slices):
    other = of_study(slices[0], "1.2.840.10008.5.1.4.1.1.88.33", "SR")
    other.StudyInstanceUID, other.PatientName, other.PatientID = generate_uid(), "Thomas^Albert", "200965981abc"
    other.StudyDate, other.StudyDescription, other.PatientWeight = "20240105", "CT Nuclear", "70"
    other.ReferencedStudySequence = [pydicom.Dataset()]
    other.ReferencedStudySequence[0].ReferencedSOPInstanceUID = "1.2.3"
    cloud.store(*map(encoded, slices))
    cloud.store(encoded(other))

    def studies(*pairs, path="studies"):
        answer = cloud.http.get(f"{cloud.url}/{path}", params=pairs, headers=JSON)
        assert answer.status_code in (200, 204), answer.text
        return answer.json() if answer.status_code == 200 else []

    def uids(*pairs):
        return [one["0020000D"]["Value"][0] for one in studies(*pairs)]

    # The latest change comes first.
    assert uids() == [other.StudyInstanceUID, slices[0].StudyInstanceUID]
    assert uids(("limit", 1), ("offset", 1)) == [slices[0].StudyInstanceUID]
    for pairs in [[("PatientID", "200965981???")], [("00100020", "2009*")], [("StudyDescription", "*Nuclear")],
                  [("StudyDate", "20240101-20240201")], [("ModalitiesInStudy", "SR")], [("StudyInstanceUID", other.StudyInstanceUID)],
                  [("PatientName", "alb"), ("fuzzymatching", "true")]]:
        assert uids(*pairs) == [other.StudyInstanceUID], pairs
    for pairs in [[("PatientID", "2009")], [("PatientName", "ber"), ("fuzzymatching", "true")], [("StudyDate", "-19000101")]]:
        assert cloud.http.get(f"{cloud.url}/studies", params=pairs).status_code == 204, pairs
    fields = [("includefield", "PatientWeight"), ("includefield", "00081110.00081155"), ("includefield", "nonsense")]
    [found] = studies(("PatientID", "2009*"), *fields)
    assert found["00101030"]["Value"] == ["70"]
    assert found["00081110"]["Value"] == [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}]
    assert "00101030" not in studies(("PatientID", "2009*"))[0]
    assert studies(("Modality", "SR"), path="series")[0]["0020000E"]["Value"] == [other.SeriesInstanceUID]
    [everything] = studies(("SOPInstanceUID", slices[0].SOPInstanceUID), ("includefield", "all"), path="instances")
    assert everything["00280010"]["Value"] == [64] and everything["00100010"]["Value"] != []
    assert len(studies(path=f"studies/{slices[0].StudyInstanceUID}/instances")) == 6
    for pairs in [[("Nonsense", "1")], [("limit", "x")], [("Modality", "CT")]]:
        refused = cloud.http.get(f"{cloud.url}/studies", params=pairs)
        assert refused.status_code == 400 and refused.headers["x-amzn-errortype"] == "ValidationException"


def test_refusals(cloud, slices):
    good, study = encoded(slices[0]), slices[0].StudyInstanceUID
    wrong = cloud.store(good, study="1.2.3")
    assert wrong.status_code == 409
    [failed] = wrong.json()["00081198"]["Value"]
    assert failed["00081155"]["Value"] == [slices[0].SOPInstanceUID] and failed["00081197"]["Value"] == [0xA900]
    mixed = cloud.store(good, b"no DICOM", study=study)
    assert mixed.status_code == 202 and mixed.headers["Content-Type"] == "application/dicom+json"
    assert len(mixed.json()["00081199"]["Value"]) == 1
    assert mixed.json()["0008119A"]["Value"] == [{"00081197": {"vr": "US", "Value": [0xC000]}}]
    url, kind = f"{cloud.url}/studies", 'multipart/related; type="application/dicom"; boundary=b'
    for data, content_type, accept, status in [
        (b"--b\r\n\r\nx", kind, "*/*", 400),
        (b"--b--", kind, "*/*", 400),
        (b"--c\r\n\r\nx\r\n--c--", kind, "*/*", 400),
        (b"x", 'multipart/related; type="application/dicom"', "*/*", 400),
        (b"", "application/dicom", "*/*", 400),
        (b"{}", "application/dicom+json", "*/*", 415),
        (b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n--b--", kind, "*/*", 415),
        (good, "application/dicom", "application/dicom+xml", 406),
    ]:
        headers = {"Content-Type": content_type, "Accept": accept}
        assert cloud.http.post(url, data=data, headers=headers).status_code == status, (data[:20], content_type)
    assert requests.post(url, data=good, headers={"Content-Type": "application/dicom"}).status_code == 403
    nowhere = cloud.http.post(f"{cloud.address}/datastore/{'0' * 32}/studies", data=good, headers={"Content-Type": "application/dicom"})
    assert nowhere.status_code == 404 and nowhere.headers["x-amzn-errortype"] == "ResourceNotFoundException"
    host, port = cloud.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(f"POST /datastore/{cloud.datastore}/studies HTTP/1.1\r\nHost: x\r\nAuthorization: x\r\n"
                    f"Content-Type: application/dicom\r\nContent-Length: {(1 << 30) + 1}\r\n\r\n".encode())
        assert b" 413 " in raw.recv(100)
    assert cloud.http.post(url, data=good, headers={"Content-Type": "application/dicom"}).status_code == 200
    assert cloud.file(screenshot(slices[0])).status_code == 404


def test_what_conflicts_is_retrieved_by_its_image_set(cloud, slices):
    cloud.store(encoded(slices[0]))
    other = pydicom.dcmread(pydicom.filebase.DicomBytesIO(encoded(slices[0])))
    other.PatientID, other.SOPInstanceUID = "another", generate_uid()
    other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID
    stored = cloud.store(encoded(other)).json()
    [primary] = cloud.sets(isPrimary=True)
    [second] = cloud.sets(isPrimary=False)
    assert stored["00081199"]["Value"][0]["00081190"]["Value"][0].endswith(f"?imageSetId={second['imageSetId']}")
    assert cloud.file(slices[0], "application/dicom").content == encoded(slices[0])
    assert cloud.file(other).status_code == 404
    assert cloud.file(other, "application/dicom", imageSetId=second["imageSetId"]).content == encoded(other)
    # Once it agrees, it can be promoted.
    ids = {"datastoreId": cloud.datastore, "imageSetId": second["imageSetId"]}
    def update(change, version, **flags):
        return cloud.ahi.update_image_set_metadata(
            **ids, latestVersionId=version, updateImageSetMetadataUpdates={"DICOMUpdates": change}, **flags)
    promote = {"sourceImageSetId": ids["imageSetId"], "datastoreId": cloud.datastore, "promoteToPrimary": True}
    with pytest.raises(cloud.ahi.exceptions.ConflictException):
        cloud.ahi.copy_image_set(**promote, copyImageSetInformation={"sourceImageSet": {"latestVersionId": "1"}})
    change = {"SchemaVersion": 1.1, "Patient": {"DICOM": {"PatientID": slices[0].PatientID}}}
    assert update({"updatableAttributes": json.dumps(change).encode()}, "1")["latestVersionId"] == "2"
    made = cloud.ahi.copy_image_set(**promote, copyImageSetInformation={"sourceImageSet": {"latestVersionId": "2"}})
    made = made["destinationImageSetProperties"]
    assert (made["imageSetId"], made["latestVersionId"]) == (primary["imageSetId"], "2")
    assert cloud.file(other).status_code == 200 and len(cloud.web.search_for_instances()) == 2
    # An image set holds an instance only once.
    with pytest.raises(cloud.ahi.exceptions.ValidationException):
        cloud.ahi.copy_image_set(**promote, copyImageSetInformation={"sourceImageSet": {"latestVersionId": "2"}})


def test_image_sets_are_copied(cloud, slices):
    cloud.store(*map(encoded, slices))
    ids = cloud.ids(slices[0])
    series, store = slices[0].SeriesInstanceUID, cloud.datastore

    def copy(version="1", **more):
        source = {"latestVersionId": version} | more.pop("subset", {})
        return cloud.ahi.copy_image_set(
            datastoreId=store, sourceImageSetId=ids["imageSetId"],
            copyImageSetInformation={"sourceImageSet": source} | more.pop("to", {}), **more,
        )["destinationImageSetProperties"]

    def subset(*uids):
        named = {"SchemaVersion": "1.1", "Study": {"Series": {series: {"Instances": {uid: {} for uid in uids}}}}}
        return {"DICOMCopies": {"copiableAttributes": json.dumps(named)}}

    first = copy(subset=subset(slices[0].SOPInstanceUID))
    made = {"datastoreId": store, "imageSetId": first["imageSetId"]}
    there = cloud.ahi.get_image_set(**made)
    assert (there["isPrimary"], there["imageSetState"], there["imageSetWorkflowStatus"]) == (False, "ACTIVE", "COPIED")
    assert list(cloud.document(made)["Study"]["Series"][series]["Instances"]) == [slices[0].SOPInstanceUID]
    copied = cloud.file(slices[0], "application/dicom", imageSetId=first["imageSetId"])
    assert copied.content == encoded(slices[0])
    to = {"to": {"destinationImageSet": {"imageSetId": first["imageSetId"], "latestVersionId": "1"}}}
    assert copy(subset=subset(slices[1].SOPInstanceUID), **to)["latestVersionId"] == "2"
    assert len(cloud.document(made)["Study"]["Series"][series]["Instances"]) == 2
    errors = cloud.ahi.exceptions
    for error, arguments in [
        (errors.ConflictException, {"version": "7"}),
        (errors.ConflictException, to),
        (errors.ValidationException, {"subset": subset("1.2.3")}),
        (errors.ValidationException, {"to": {"destinationImageSet": {"imageSetId": first["imageSetId"], "latestVersionId": "2"}}}),
        (errors.ValidationException, {"promoteToPrimary": True}),
    ]:
        with pytest.raises(error):
            copy(**arguments)
    # A deletion leaves the copies intact.
    cloud.ahi.delete_image_set(**ids)
    assert cloud.file(slices[1], "application/dicom", imageSetId=first["imageSetId"]).content == encoded(slices[1])


def test_metadata_is_updated(cloud, slices):
    seg = segmentation(slices, hd.seg.SegmentationTypeValues.BINARY)
    cloud.store(*map(encoded, slices), encoded(seg))
    ids = cloud.ids(slices[0])

    def update(version, force=False, study=False, of=ids, **updates):
        updates = {name: json.dumps({"SchemaVersion": 1.1} | value).encode() for name, value in updates.items()}
        return cloud.ahi.update_image_set_metadata(
            **of, latestVersionId=version, force=force, includeStudyImageSets=study,
            updateImageSetMetadataUpdates={"DICOMUpdates": updates})

    patient = {"Patient": {"DICOM": {"PatientName": "MX^MX"}}}
    answer = update("1", study=True, updatableAttributes=patient)
    assert (answer["latestVersionId"], answer["imageSetWorkflowStatus"]) == ("2", "UPDATING")
    for one in (slices[0], seg):
        assert cloud.document(cloud.ids(one))["Patient"]["DICOM"]["PatientName"] == "MX^MX"
        # The file has the change, too; its pixels are as before.
        changed = pydicom.dcmread(pydicom.filebase.DicomBytesIO(cloud.file(one, "application/dicom").content))
        assert changed.PatientName == "MX^MX" and np.array_equal(changed.pixel_array, one.pixel_array)
    update("2", updatableAttributes={"Study": {"DICOM": {"StudyDescription": "CHEST"}}})
    update("3", removableAttributes={"Study": {"DICOM": {"StudyDescription": "CHEST"}}})
    assert "StudyDescription" not in cloud.document(ids)["Study"]["DICOM"]
    gone = {"Study": {"Series": {slices[0].SeriesInstanceUID: {"Instances": {slices[0].SOPInstanceUID: {}}}}}}
    update("4", removableAttributes=gone)
    assert len(cloud.web.search_for_instances(slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID)) == 5
    assert cloud.file(slices[0]).status_code == 404
    private = {"DICOM": {"001910F9": "97"}, "DICOMVRs": {"001910F9": "DS"}}
    private = {"Study": {"Series": {slices[0].SeriesInstanceUID: {"Instances": {slices[1].SOPInstanceUID: private}}}}}
    update("5", force=True, updatableAttributes=private)
    assert cloud.ahi.get_image_set(**ids)["overrides"] == {"forced": True}
    reverted = cloud.ahi.update_image_set_metadata(
        **ids, latestVersionId="6", updateImageSetMetadataUpdates={"revertToVersionId": "1"})
    assert reverted["latestVersionId"] == "7" and cloud.document(ids) == cloud.document(ids, versionId="1")
    assert cloud.file(slices[0], "application/dicom").content == encoded(slices[0])
    versions = cloud.ahi.list_image_set_versions(**ids)["imageSetPropertiesList"]
    assert [one["versionId"] for one in versions] == list("7654321")
    errors = cloud.ahi.exceptions
    for error, arguments in [
        (errors.ConflictException, ("1", False, True, ids, patient)),
        (errors.ValidationException, ("7", False, False, ids, patient)),
        (errors.ValidationException, ("7", False, False, ids, {"Patient": {"DICOM": {"NoKeyword": "1"}}})),
        (errors.ValidationException, ("7", True, False, ids, {"Study": {"DICOM": {"StudyInstanceUID": "1.2"}}})),
        (errors.ValidationException, ("7", False, False, ids, private)),
        (errors.ValidationException, ("7", False, False, ids, {"Study": {"DICOM": {"StudyDescription": {"a": 1}}}})),
    ]:
        version, force, study, of, updates = arguments
        with pytest.raises(error):
            update(version, force, study, of, updatableAttributes=updates)
    with pytest.raises(errors.ResourceNotFoundException):
        cloud.document(ids, versionId="9")


def test_resources_have_tags(cloud, slices):
    cloud.store(encoded(slices[0]))
    ids = cloud.ids(slices[0])
    for arn in (cloud.ahi.get_image_set(**ids)["imageSetArn"],
                cloud.ahi.get_datastore(datastoreId=cloud.datastore)["datastoreProperties"]["datastoreArn"]):
        assert cloud.ahi.list_tags_for_resource(resourceArn=arn)["tags"] == {}
        cloud.ahi.tag_resource(resourceArn=arn, tags={"purpose": "tests", "other": ""})
        cloud.ahi.untag_resource(resourceArn=arn, tagKeys=["other", "none"])
        assert cloud.ahi.list_tags_for_resource(resourceArn=arn)["tags"] == {"purpose": "tests"}
    with pytest.raises(cloud.ahi.exceptions.ValidationException):
        cloud.ahi.tag_resource(resourceArn=arn, tags={str(n): "" for n in range(51)})
    with pytest.raises(cloud.ahi.exceptions.ResourceNotFoundException):
        cloud.ahi.list_tags_for_resource(resourceArn=arn[:-1] + ("0" if arn[-1] != "0" else "1"))
    made = cloud.ahi.create_datastore(datastoreName="tagged", tags={"a": "b"})["datastoreId"]
    arn = cloud.ahi.get_datastore(datastoreId=made)["datastoreProperties"]["datastoreArn"]
    assert cloud.ahi.list_tags_for_resource(resourceArn=arn)["tags"] == {"a": "b"}


def test_a_data_store_of_jpeg_2000(cloud, slices):
    made = cloud.ahi.create_datastore(datastoreName="j2k", losslessStorageFormat="JPEG_2000_LOSSLESS")["datastoreId"]
    cloud.use(made)
    assert cloud.ahi.get_datastore(datastoreId=made)["datastoreProperties"]["losslessStorageFormat"] == "JPEG_2000_LOSSLESS"
    cloud.store(*map(encoded, slices))
    ids = cloud.ids(slices[0])
    [series] = cloud.document(ids)["Study"]["Series"].values()
    instance = series["Instances"][slices[0].SOPInstanceUID]
    assert instance["StoredTransferSyntaxUID"] == JPEG2000Lossless
    frame = cloud.ahi.get_image_frame(**ids, imageFrameInformation={"imageFrameId": instance["ImageFrames"][0]["ID"]})
    assert frame["contentType"] == "image/j2c"
    from openjpeg import decode
    assert np.array_equal(decode(frame["imageFrameBlob"].read()), slices[0].pixel_array)
    assert cloud.file(slices[0], "application/dicom").content == encoded(slices[0])


def test_warnings(cloud, slices):
    broken = pydicom.dcmread(pydicom.filebase.DicomBytesIO(encoded(slices[0])))
    broken.HighBit = 7
    stored = cloud.store(encoded(broken), encoded(slices[1]))
    assert stored.status_code == 202 and "00081198" not in stored.json()
    codes = {one["00081155"]["Value"][0]: one.get("00081196", {}).get("Value") for one in stored.json()["00081199"]["Value"]}
    assert codes == {broken.SOPInstanceUID: [0xB100], slices[1].SOPInstanceUID: None}
    found = cloud.web.search_for_instances(search_filters={"WarningReason": "*", "SOPInstanceUID": broken.SOPInstanceUID})
    assert found[0]["00081196"]["Value"] == [0xB100]
    assert cloud.file(broken).content == encoded(broken)


def test_import_jobs_write_warnings(cloud, slices):
    broken = pydicom.dcmread(pydicom.filebase.DicomBytesIO(encoded(slices[0])))
    broken.HighBit = 7
    for bucket in ("in", "out"):
        cloud.s3.create_bucket(Bucket=f"warnings-{bucket}")
    for name, one in [("broken.dcm", broken), ("good.dcm", slices[1])]:
        cloud.s3.put_object(Bucket="warnings-in", Key=f"ct/{name}", Body=encoded(one))
    job = cloud.ahi.start_dicom_import_job(
        datastoreId=cloud.datastore, inputS3Uri="s3://warnings-in/ct/", outputS3Uri="s3://warnings-out/",
        dataAccessRoleArn="arn:aws:iam::000000000000:role/import", clientToken="t")
    for _ in range(300):
        state = cloud.ahi.get_dicom_import_job(datastoreId=cloud.datastore, jobId=job["jobId"])["jobProperties"]
        if state["jobStatus"] in ("COMPLETED", "FAILED"):
            break
        time.sleep(0.1)
    assert state["jobStatus"] == "COMPLETED", state
    folder = f"{cloud.datastore}-DicomImport-{job['jobId']}"

    def lines(name):
        body = cloud.s3.get_object(Bucket="warnings-out", Key=f"{folder}/{name}")["Body"].read()
        return [json.loads(line) for line in body.splitlines()]

    assert {line["inputFile"] for line in lines("SUCCESS/success.ndjson")} == {"ct/broken.dcm", "ct/good.dcm"}
    assert lines("FAILURE/failure.ndjson") == []
    [warned] = lines("WARNING/warning.ndjson")
    assert warned["inputFile"] == "ct/broken.dcm" and warned["importResponse"]["isPrimary"] is True
    [warning] = warned["importResponse"]["warnings"]
    assert (warning["warning_reason_code"], warning["type"]) == (0xB100, "TranscodingException")
    assert "HighBit" in warning["message"]
