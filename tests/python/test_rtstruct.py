"""RT Structure Sets read by third-party tools: dciodvfy, pydicom, plastimatch.

`cargo test --test suite rtstruct` writes the files, each next to the masks it was created from, to
`target/rtstruct-fixtures`, or to RTSTRUCT_FIXTURES if that is set. The last tests create them with the program
itself.
"""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

import tiny
from local import ROOT, emulate, find_files, post, run, serve

FIXTURES = Path(
    os.environ.get("RTSTRUCT_FIXTURES")
    or Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "rtstruct-fixtures"
)
CASES = ["axial", "sagittal", "coronal", "oblique", "tilted", "multi_frame", "overlap", "sieve", "empty"]


class Case:
    def __init__(self, name):
        folder = FIXTURES / name
        self.path = folder / "rtstruct.dcm"
        if not self.path.exists():
            pytest.fail(f"{self.path} is not there; run `cargo test --release --test suite rtstruct` first")
        # Axes (segment, X, Y, Z).
        self.masks = np.load(folder / "masks.npy")
        self.sources = json.loads((folder / "sources.json").read_text())


@pytest.fixture
def case(request):
    return Case(request.param)


def cases(*names):
    return pytest.mark.parametrize("case", names, indirect=True)


def dciodvfy(path):
    """dciodvfy's errors and warnings."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    done = subprocess.run([tool, str(path)], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    assert "RTStructureSet" in lines, lines
    return [line for line in lines if line.startswith(("Error", "Warning"))]


def inside(polygon, columns, rows):
    """The pixels whose centre is inside a polygon of columns and rows by the even-odd rule, axes (X, Y)."""
    crossings = np.zeros((columns + 1, rows), int)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0)):
        # Always upwards, so that an edge traversed in both directions is the same edge.
        (ax, ay), (bx, by) = sorted((tuple(a), tuple(b)), key=lambda point: point[1])
        for y in range(max(0, int(np.ceil(ay))), min(rows, int(np.ceil(by)))):
            x = ax + (y - ay) / (by - ay) * (bx - ax)
            crossings[min(max(int(np.ceil(x)), 0), columns), y] += 1
    return np.cumsum(crossings, axis=0)[:columns] % 2 == 1


def masks_of(dataset, sources, shape):
    """The masks of all ROIs on the slices that their contours refer to, axes (segment, X, Y, Z)."""
    index = {(source["sopInstanceUID"], source["frame"]): z for z, source in enumerate(sources)}
    masks = np.zeros((len(dataset.StructureSetROISequence), *shape), bool)
    for roi in dataset.ROIContourSequence:
        for contour in roi.get("ContourSequence", []):
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            [image] = contour.ContourImageSequence
            z = index[image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber", 1) - 1]
            source = sources[z]
            row, column = np.reshape(source["orientation"], (2, 3))
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3)) - source["position"]
            assert len(points) == contour.NumberOfContourPoints
            assert np.abs(points @ np.cross(row, column)).max() < 1e-3, "a contour beside its plane"
            between_rows, between_columns = source["spacing"]
            polygon = np.stack([points @ row / between_columns, points @ column / between_rows], axis=1)
            masks[roi.ReferencedROINumber - 1, :, :, z] |= inside(polygon, *shape[:2])
    return masks


@cases(*CASES)
def test_dciodvfy_finds_nothing(case):
    assert dciodvfy(case.path) == []


@cases(*CASES)
def test_contours_give_the_masks(case):
    dataset = pydicom.dcmread(case.path)
    assert dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    masks = masks_of(dataset, case.sources, case.masks.shape[1:])
    assert masks.shape == case.masks.shape
    np.testing.assert_array_equal(masks, case.masks != 0)


@cases(*CASES)
def test_decimal_strings_are_those_of_dicom(case):
    for roi in pydicom.dcmread(case.path).ROIContourSequence:
        for contour in roi.get("ContourSequence", []):
            texts = [getattr(value, "original_string", str(value)) for value in contour.ContourData]
            assert max(map(len, texts)) <= 16


def source_files(case, folder):
    """The images that a case was created from, as CT slices without content."""
    _, columns, rows, _ = case.masks.shape
    structure_set = pydicom.dcmread(case.path)
    for number, source in enumerate(case.sources):
        image = pydicom.Dataset()
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, source["sopInstanceUID"]
        image.Modality = "CT"
        image.StudyInstanceUID = structure_set.StudyInstanceUID
        image.FrameOfReferenceUID = structure_set.FrameOfReferenceUID
        [reference] = structure_set.ReferencedFrameOfReferenceSequence
        image.SeriesInstanceUID = (
            reference.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID
        )
        image.PatientName, image.PatientID = structure_set.PatientName, structure_set.PatientID
        image.InstanceNumber = number + 1
        image.ImagePositionPatient = source["position"]
        image.ImageOrientationPatient = source["orientation"]
        image.PixelSpacing = source["spacing"]
        image.Columns, image.Rows = columns, rows
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 1
        image.RescaleIntercept, image.RescaleSlope = 0, 1
        image.PixelData = bytes(2 * columns * rows)
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)


@cases("axial", "overlap", "sieve")
def test_plastimatch_finds_the_masks(case, tmp_path):
    """plastimatch does not support slices that are not axial."""
    (tmp_path / "ct").mkdir()
    source_files(case, tmp_path / "ct")
    tool = Path(os.sys.executable).with_name("plastimatch")
    done = subprocess.run(
        [tool, "convert", "--input", case.path, "--referenced-ct", tmp_path / "ct",
         "--output-prefix", tmp_path / "masks", "--prefix-format", "nrrd"],
        # It prints names in the file's character set.
        capture_output=True, text=True, errors="replace",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = [roi.ROIName for roi in pydicom.dcmread(case.path).StructureSetROISequence]
    found = 0
    for name, mask in zip(names, case.masks):
        file = tmp_path / "masks" / f"{name}.nrrd"
        if not mask.any():
            continue
        image = SimpleITK.ReadImage(str(file))
        theirs = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0) != 0
        assert theirs.shape == mask.shape
        dice = 2 * (theirs & (mask != 0)).sum() / (theirs.sum() + (mask != 0).sum())
        print(name, f"{dice:.5f}")
        assert dice >= 0.99, name
        found += 1
    assert found > 0


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A small phantom in a store, and a model that finds everything brighter than its threshold."""
    folder = tmp_path_factory.mktemp("rtstruct")
    return folder, tiny.images(folder, size=48, slices=10), tiny.bundle(folder / "model", 20)


def truth(folder):
    """The voxels above the threshold, axes (X, Y, Z), with their slices in the form that `masks_of` expects."""
    files = [pydicom.dcmread(file) for file in find_files(folder / "phantom/dicom", lambda p: p.suffix == ".dcm")]
    files.sort(key=lambda file: float(file.ImagePositionPatient[2]))
    values = np.stack([f.pixel_array * float(f.RescaleSlope) + float(f.RescaleIntercept) for f in files])
    sources = [
        {"sopInstanceUID": file.SOPInstanceUID, "frame": 0,
         "position": [float(v) for v in file.ImagePositionPatient],
         "orientation": [float(v) for v in file.ImageOrientationPatient],
         "spacing": [float(v) for v in file.PixelSpacing]}
        for file in files
    ]
    return values.transpose(2, 1, 0) > tiny.threshold(20), sources


def test_the_program_writes_what_it_found(phantom, tmp_path):
    folder, _, model = phantom
    report = json.loads(run(
        "run", folder / "phantom/dicom", "--model", model, "--out", tmp_path, "--output", "rtstruct",
        "--output", "dicom-seg",
    ))
    [kind, _] = report["outputs"]
    assert kind["kind"] == "rtstruct" and kind["mediaType"] == "application/dicom"
    assert report["segments"][0]["in"] == {"rtstruct": {"roiNumber": 1}, "dicom-seg": {"segmentNumber": 1}}
    files = find_files(tmp_path, lambda p: p.suffix == ".dcm")
    [path] = [file for file in files if pydicom.dcmread(file).Modality == "RTSTRUCT"]
    assert dciodvfy(path) == []
    expected, sources = truth(folder)
    dataset = pydicom.dcmread(path)
    np.testing.assert_array_equal(masks_of(dataset, sources, expected.shape)[0], expected)
    [roi] = dataset.StructureSetROISequence
    assert roi.ROIName == "Model 20"
    assert float(roi.ROIVolume) == pytest.approx(report["segments"][0]["millilitres"], abs=1e-3)


def test_a_request_gives_the_same_instance_again(phantom):
    folder, images, model = phantom
    body = images.request | {"outputs": ["rtstruct"]}
    datasets = []
    with emulate(images.store) as ahi, serve(model, ahi.address) as server:
        for _ in range(2):
            status, _, answer = post(server.address, body)
            assert status == 200, answer
            [output] = json.loads(answer)["results"][0]["outputs"]
            assert output["fileName"] == "model-20.rtstruct.dcm"
            content = base64.b64decode(output["data"])
            datasets.append(pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)))
    first, second = datasets
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first.ROIContourSequence == second.ROIContourSequence
    expected, sources = truth(folder)
    np.testing.assert_array_equal(masks_of(first, sources, expected.shape)[0], expected)
