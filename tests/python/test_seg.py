"""DICOM SEG and NIfTI files read by third-party tools: dciodvfy, highdicom, pydicom, nibabel.

`cargo test --test suite seg` writes the files, each next to the label map it was created from, to
`target/seg-fixtures`, or to AHI_SEG_FIXTURES if that is set.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.sr._concepts_dict import concepts

REPOSITORY = Path(__file__).parents[2]
FIXTURES = Path(
    os.environ.get("AHI_SEG_FIXTURES")
    or Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target") / "seg-fixtures"
)
# Created from flawless synthetic headers: no warning is excused.
FLAWLESS = ["axial", "oblique", "reversed", "sagittal", "multi_frame", "empty", "all_frames", "lossy"]
# Created from headers of a real series, which may be missing from the reference material.
REAL = ["cranium"]
# Their orientation differs between slices only in how it is written.
MIXED = ["mixed"]


class Case:
    def __init__(self, name):
        self.path = FIXTURES / name / "seg.dcm"
        if not self.path.exists():
            if name in REAL:
                pytest.skip(f"{name}: the reference material was not there when it was to be written")
            pytest.fail(f"{self.path} is not there; run `cargo test --release --test suite seg` first")
        # Axes (X, Y, Z).
        self.labels = np.load(FIXTURES / name / "labels.npy")
        self.sources = json.loads((FIXTURES / name / "sources.json").read_text())
        self.seg = highdicom.seg.segread(self.path)

    def expected_slices(self):
        """Axes (slice, row, column), as highdicom has them."""
        return self.labels.transpose(2, 1, 0)


@pytest.fixture
def case(request):
    return Case(request.param)


def cases(*names):
    return pytest.mark.parametrize("case", names, indirect=True)


@cases(*FLAWLESS, *REAL, *MIXED)
def test_dciodvfy_finds_nothing(case):
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    run = subprocess.run([tool, str(case.path)], capture_output=True, text=True)
    lines = (run.stdout + run.stderr).splitlines()
    assert "Segmentation" in lines, lines
    assert [line for line in lines if line.startswith(("Error", "Warning"))] == []
    assert run.returncode == 0


@cases(*FLAWLESS, *REAL, *MIXED)
def test_labels_by_source(case):
    """Every source slice, looked up by its UID (and frame), has the label map's plane."""
    options = dict(combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True)
    if case.sources[0]["multiFrame"]:
        uid = case.sources[0]["sopInstanceUID"]
        frames = [source["frame"] + 1 for source in case.sources]
        pixels = case.seg.get_pixels_by_source_frame(uid, frames, **options)
    else:
        uids = [source["sopInstanceUID"] for source in case.sources]
        pixels = case.seg.get_pixels_by_source_instance(uids, **options)
    np.testing.assert_array_equal(pixels, case.expected_slices())


@cases("axial", "oblique", "reversed", "sagittal", "multi_frame", "all_frames", *REAL)
def test_labels_by_position(case):
    """highdicom's volume, built from positions alone, has every voxel at its place in the patient."""
    volume = case.seg.get_volume(combine_segments=True)
    positions = np.array([source["position"] for source in case.sources], dtype=float)
    shared = case.seg.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(
        np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float), (2, 3)
    )
    between_rows, between_columns = (float(x) for x in shared.PixelMeasuresSequence[0].PixelSpacing)
    found = np.argwhere(case.labels > 0)
    assert len(found) > 0
    x, y, z = found.T
    points = positions[z] + np.outer(x, row * between_columns) + np.outer(y, column * between_rows)

    indices = volume.map_reference_to_indices(points)
    np.testing.assert_allclose(indices, np.round(indices), atol=1e-3)
    indices = np.round(indices).astype(int)
    np.testing.assert_array_equal(volume.array[tuple(indices.T)], case.labels[x, y, z])
    assert np.count_nonzero(volume.array) == len(found)


@cases(*FLAWLESS, *REAL, *MIXED)
def test_frames_refer_to_their_plane(case):
    """Positions are the sources' strings, frames are in order, dimension indices have no gaps."""
    dataset = pydicom.dcmread(case.path)
    frames = dataset.PerFrameFunctionalGroupsSequence
    keys = []
    for frame in frames:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        number = source.get("ReferencedFrameNumber", 1) - 1
        [z] = [
            z
            for z, expected in enumerate(case.sources)
            if (expected["sopInstanceUID"], expected["frame"])
            == (source.ReferencedSOPInstanceUID, number)
        ]
        position = [str(value) for value in frame.PlanePositionSequence[0].ImagePositionPatient]
        assert position == case.sources[z]["position"]
        segment = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        keys.append((segment, z))
        assert frame.FrameContentSequence[0].DimensionIndexValues[0] == segment
    assert keys == sorted(set(keys))
    slices = sorted({z for _, z in keys})
    indices = [frame.FrameContentSequence[0].DimensionIndexValues[1] for frame in frames]
    assert indices == [slices.index(z) + 1 for _, z in keys]
    assert len(dataset.PixelData) % 2 == 0


@cases("axial")
def test_segments(case):
    seg = case.seg
    assert seg.number_of_segments == 3
    first, second, third = (seg.get_segment_description(number) for number in (1, 2, 3))
    assert first.segment_label == "Spleen"
    assert first.algorithm_type.value == "AUTOMATIC"
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert first.algorithm_identification.parameters == {"network SHA-256": sha256}
    family = first.algorithm_identification.family
    assert (family.value, family.scheme_designator) == ("123110", "DCM")
    assert concepts["DCM"]["ArtificialIntelligence"]["123110"][0] == family.meaning
    assert second.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[
        0
    ].CodeMeaning == "Left"
    assert third.anatomic_regions[0].meaning == "Liver"
    assert seg.SegmentationType == "BINARY" and seg.BitsAllocated == 1
    assert str(seg.PatientName) == "Müller^Zoë"


@pytest.mark.parametrize("name", ["sheared", "straight"])
def test_nifti(name):
    folder = FIXTURES / "nifti"
    image = nibabel.load(folder / f"{name}.nii.gz")
    labels = np.load(folder / "labels.npy")
    affine = np.load(folder / f"{name}.affine.npy")
    assert image.get_data_dtype() == np.uint8
    found = np.asarray(image.dataobj)
    if name == "straight":
        np.testing.assert_array_equal(found, labels)
        np.testing.assert_allclose(image.affine, affine, rtol=1e-6)
    else:
        # Slices are shifted by whole pixels to where they belong: no voxel is off by more than half a pixel.
        own = np.linalg.inv(image.affine) @ affine
        for z in range(labels.shape[2]):
            moved = own @ [0, 0, z, 1]
            x, y = (int(round(v)) for v in moved[:2])
            assert abs(moved[2] - z) < 1e-5 and max(abs(moved[0] - x), abs(moved[1] - y)) <= 0.5 + 1e-5
            slab = np.zeros(found.shape[:2], np.uint8)
            slab[x : x + labels.shape[0], y : y + labels.shape[1]] = labels[:, :, z]
            np.testing.assert_array_equal(found[:, :, z], slab)
    np.testing.assert_allclose(image.header.get_zooms(), np.linalg.norm(image.affine[:3, :3], axis=0), rtol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"
    sform, sform_code = image.get_sform(coded=True)
    qform, qform_code = image.get_qform(coded=True)
    assert (sform_code, qform_code) == (1, 1)
    np.testing.assert_allclose(qform, sform, atol=1e-5)
    # ITK reads no file whose axes are not orthogonal; its patient axes are LPS.
    itk = SimpleITK.ReadImage(str(folder / f"{name}.nii.gz"))
    place = itk.TransformIndexToPhysicalPoint((3, 2, 1))
    np.testing.assert_allclose(np.array(place) * [-1, -1, 1], (sform @ [3, 2, 1, 1])[:3], atol=1e-4)


def test_known_codes_are_those_of_dicom():
    """Each code that a class gets by its name is a DICOM code, with DICOM's meaning."""
    source = (REPOSITORY / "src/bundle/anatomy.rs").read_text()
    found = re.findall(r'\], "(\d+)", "([^"]+)"\)', source)
    found += re.findall(r'Code::sct\("(\d+)", "([^"]+)"\)', source)
    assert len(found) > 90
    meanings = {}
    for codes in concepts["SCT"].values():
        for code, (meaning, _) in codes.items():
            meanings.setdefault(code, set()).add(meaning)
    wrong = [(code, meaning) for code, meaning in found if meaning not in meanings.get(code, ())]
    assert wrong == []
