"""What results are called, and which of a model's segments they contain."""

import base64
import io
import shutil

import numpy as np
import pydicom
import pytest

import tiny
from local import emulate, serve
from traffic import ask

BANDS = [2, 6, 10]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def ahi(images):
    with emulate(images.store) as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.bands_bundle(tmp_path_factory.mktemp("models") / "model", BANDS)


def expected(images, band):
    """The number of voxels of a class, by NumPy."""
    lower = tiny.threshold(BANDS[band])
    upper = tiny.threshold(BANDS[band + 1]) if band + 1 < len(BANDS) else np.inf
    return int(((images.values > lower) & (images.values <= upper)).sum())


def segmentation(answer):
    """The DICOM SEG of the only result."""
    [output] = [o for o in answer.json()["results"][0]["outputs"] if o["kind"] == "dicom-seg"]
    return pydicom.dcmread(io.BytesIO(base64.b64decode(output["data"])))


def uids(file):
    """Every UID that belongs to the result itself."""
    return (file.SOPInstanceUID, file.SeriesInstanceUID, file.DimensionOrganizationSequence[0].DimensionOrganizationUID,
            *(segment.TrackingUID for segment in file.SegmentSequence))


def post(server, body):
    return ask(server.address, "POST", "/invocations", body)


def test_the_same_request_makes_the_same_instances(images, ahi, model, tmp_path):
    with serve(model, ahi.address) as server:
        first, second = (uids(segmentation(post(server, images.request))) for _ in range(2))
        some = uids(segmentation(post(server, images.request | {"segments": ["band 6"]})))
        other_policy = uids(segmentation(post(server, images.request | {"policy": {"gaps": "interpolate"}})))
    assert first == second and len(set(first)) == len(first)
    assert all(uid.startswith("2.25.") and pydicom.uid.UID(uid).is_valid for uid in first)
    assert not set(some) & set(first) and not set(other_policy) & set(first)
    # Another server with the same package, and one whose package differs in a word.
    with serve(model, ahi.address) as server:
        assert uids(segmentation(post(server, images.request))) == first
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    (copy / "serving.json").write_text('{"seriesDescription": "Another"}')
    with serve(copy, ahi.address) as server:
        assert not set(uids(segmentation(post(server, images.request)))) & set(first)
    with serve(model, ahi.address, FRESH_UIDS="true") as server:
        a, b = (uids(segmentation(post(server, images.request))) for _ in range(2))
    assert not set(a) & set(b) and not set(a) & set(first)


def test_a_request_names_the_segments_it_wants(images, ahi, model):
    with serve(model, ahi.address) as server:
        everything = post(server, images.request).json()["results"][0]["segments"]
        chosen = post(server, images.request | {"segments": ["BAND 10", "band 2"], "outputs": ["dicom-seg", "nifti"]})
        refused = post(server, images.request | {"segments": ["Smith"]})
        empty = post(server, images.request | {"segments": []})
    assert [s["voxels"] for s in everything] == [expected(images, i) for i in range(3)]
    assert chosen.status == 200
    segments = chosen.json()["results"][0]["segments"]
    assert [(s["number"], s["label"].lower(), s["voxels"]) for s in segments] == [
        (1, "band 2", expected(images, 0)), (2, "band 10", expected(images, 2))]
    # Values in NIfTI are the model's own.
    assert [s["in"]["nifti"]["value"] for s in segments] == [1, 3]
    file = segmentation(chosen)
    assert [s.SegmentLabel.lower() for s in file.SegmentSequence] == ["band 2", "band 10"]
    assert int(np.unpackbits(np.frombuffer(file.PixelData, np.uint8)).sum()) == sum(s["voxels"] for s in segments)
    error = refused.json()["error"]
    assert refused.status == 400 and error["code"] == "invalid_request"
    assert error["details"]["segments"] == [s["label"] for s in everything]
    assert "Smith" not in refused.body.decode()
    assert empty.status == 400 and "segments" in empty.json()["error"]["message"]


def test_processing_equipment_contributed(images, ahi, model):
    with serve(model, ahi.address) as server:
        file = segmentation(post(server, images.request))
    [equipment] = file.ContributingEquipmentSequence
    [purpose] = equipment.PurposeOfReferenceCodeSequence
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109102", "DCM")
    assert (equipment.Manufacturer, equipment.ManufacturerModelName) == ("ahi-inference", file.ManufacturerModelName)
