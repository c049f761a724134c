"""DICOM SEG of type LABELMAP, read by third-party tools: highdicom, pydicom's decoders, imagecodecs, dcmqi.

`cargo test --test suite seg` writes the files, each next to the BINARY one and the label map it was created from,
as described in `test_seg.py`.
"""

import base64
import json
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.sr._concepts_dict import concepts

from local import ROOT, emulate, import_dicom, post, run, serve
from test_seg import FIXTURES, FLAWLESS, MIXED, REAL, Case

ENCODINGS = {"native": "1.2.840.10008.1.2.1", "rle": "1.2.840.10008.1.2.5", "htj2k": "1.2.840.10008.1.2.4.201"}
# More than 255 segments: two bytes per pixel.
ALL = [*FLAWLESS, *REAL, *MIXED, "many"]
# Those whose planes form a volume with something in it.
VOLUMES = ["axial", "oblique", "reversed", "sagittal", "multi_frame", "all_frames", "many", *REAL]


class LabelMap(Case):
    def __init__(self, name, encoding):
        super().__init__(name)
        self.binary = self.seg
        self.path = FIXTURES / name / f"labelmap-{encoding}.dcm"
        self.dataset = pydicom.dcmread(self.path)
        self.seg = highdicom.seg.segread(self.path)


@pytest.fixture
def case(request):
    return LabelMap(*request.param)


def cases(names, encodings=tuple(ENCODINGS)):
    pairs = [(name, encoding) for name in names for encoding in encodings]
    return pytest.mark.parametrize("case", pairs, indirect=True, ids=["-".join(pair) for pair in pairs])


def by_source(case, seg):
    """Axes (slice, row, column)."""
    options = dict(combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True)
    if case.sources[0]["multiFrame"]:
        frames = [source["frame"] + 1 for source in case.sources]
        return seg.get_pixels_by_source_frame(case.sources[0]["sopInstanceUID"], frames, **options)
    return seg.get_pixels_by_source_instance([source["sopInstanceUID"] for source in case.sources], **options)


@cases(ALL)
def test_both_types_have_the_same_labels(case):
    """Every source slice, looked up by its UID (and frame), has the label map's plane."""
    pixels = by_source(case, case.seg)
    np.testing.assert_array_equal(pixels, case.expected_slices())
    np.testing.assert_array_equal(pixels, by_source(case, case.binary))


@cases(VOLUMES, ["rle"])
def test_both_types_make_the_same_volume(case):
    volume, other = (seg.get_volume(combine_segments=True) for seg in (case.seg, case.binary))
    np.testing.assert_array_equal(volume.affine, other.affine)
    np.testing.assert_array_equal(volume.array, other.array)
    assert np.count_nonzero(volume.array) == np.count_nonzero(case.labels)


@cases(ALL)
def test_attributes(case):
    data, binary = case.dataset, case.binary
    bits = 16 if len(binary.SegmentSequence) > 255 else 8
    assert data.SOPClassUID == data.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    assert (data.SegmentationType, data.SegmentsOverlap) == ("LABELMAP", "NO")
    assert (data.BitsAllocated, data.BitsStored, data.HighBit) == (bits, bits, bits - 1)
    assert (data.PhotometricInterpretation, data.PixelRepresentation) == ("MONOCHROME2", 0)
    assert data.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    # The background is the segment of the Pixel Padding Value; the others are described as in BINARY.
    background, *segments = data.SegmentSequence
    assert background.SegmentNumber == data.PixelPaddingValue == 0
    code = background.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodingSchemeDesignator, code.CodeValue) == ("DCM", "125040")
    assert concepts["DCM"]["Background"]["125040"][0] == code.CodeMeaning
    assert segments == list(binary.SegmentSequence)
    assert not any("SegmentIdentificationSequence" in frame for frame in data.PerFrameFunctionalGroupsSequence)
    [index] = data.DimensionIndexSequence
    assert index.DimensionIndexPointer == 0x00200032
    indices = [frame.FrameContentSequence[0].DimensionIndexValues for frame in data.PerFrameFunctionalGroupsSequence]
    assert indices == list(range(1, len(indices) + 1))


def test_nothing_is_missing_that_highdicom_writes():
    """Our file has every attribute that highdicom itself writes for the same labels."""
    case = LabelMap("axial", "native")
    source = pydicom.Dataset()
    for name in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber",
                 "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName", "FrameOfReferenceUID"):
        setattr(source, name, case.dataset.get(name, ""))
    source.SOPClassUID, source.SeriesInstanceUID, source.Modality = "1.2.840.10008.5.1.4.1.1.2", "2.25.2", "CT"
    source.Rows, source.Columns = case.dataset.Rows, case.dataset.Columns
    source.ImageOrientationPatient, source.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.9]
    source.SliceThickness, source.PositionReferenceIndicator = 2.5, ""
    source.file_meta = pydicom.dataset.FileMetaDataset()
    source.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    sources = []
    for one in case.sources:
        image = pydicom.Dataset()
        image.update(source)
        image.file_meta = source.file_meta
        image.SOPInstanceUID, image.ImagePositionPatient = one["sopInstanceUID"], [float(x) for x in one["position"]]
        sources.append(image)
    segments = [highdicom.seg.SegmentDescription.from_dataset(item) for item in case.dataset.SegmentSequence[1:]]
    theirs = highdicom.seg.Segmentation(
        source_images=sources, pixel_array=case.expected_slices(), segmentation_type="LABELMAP",
        segment_descriptions=segments, series_instance_uid="2.25.8", series_number=1, sop_instance_uid="2.25.9",
        instance_number=1, manufacturer="m", manufacturer_model_name="n", software_versions="1",
        device_serial_number="0", omit_empty_frames=True,
    )
    # Optional ones: the sources again, and how to display gray values.
    own = {"SourceImageSequence", "DimensionOrganizationType", "PresentationLUTShape"}
    lacking = {element.keyword for element in theirs} - {element.keyword for element in case.dataset} - own
    assert lacking == set()
    assert theirs.NumberOfFrames == case.dataset.NumberOfFrames
    assert theirs.PixelPaddingValue == case.dataset.PixelPaddingValue


@cases(ALL)
def test_frames_by_every_decoder(case):
    """The pixels from each decoder that pydicom has for the transfer syntax, and from imagecodecs."""
    data = case.dataset
    uid = data.file_meta.TransferSyntaxUID
    assert uid == ENCODINGS[case.path.stem.removeprefix("labelmap-")]
    native = pydicom.dcmread(case.path.with_name("labelmap-native.dcm")).pixel_array
    native = native.reshape(data.NumberOfFrames, data.Rows, data.Columns)
    if uid == ENCODINGS["native"]:
        assert len(data.PixelData) == native.nbytes + native.nbytes % 2
        assert data["PixelData"].VR == ("OW" if data.BitsAllocated > 8 else "OB")
        return
    decoder = get_decoder(uid)
    assert decoder.available_plugins
    for plugin in decoder.available_plugins:
        frames = [frame for frame, _ in decoder.iter_array(data, decoding_plugin=plugin)]
        np.testing.assert_array_equal(np.stack(frames), native, err_msg=plugin)
    frames = list(generate_frames(data.PixelData, number_of_frames=data.NumberOfFrames))
    assert len(frames) == data.NumberOfFrames
    if uid == ENCODINGS["htj2k"]:
        imagecodecs = pytest.importorskip("imagecodecs", reason="there is no wheel of it with HTJ2K for this Python")
        found = np.stack([imagecodecs.htj2k_decode(frame) for frame in frames])
        np.testing.assert_array_equal(found, native)


@cases(ALL, ["rle", "htj2k"])
def test_the_basic_offset_table_leads_to_each_frame(case):
    value = case.dataset.PixelData
    frames = case.dataset.NumberOfFrames
    tag, length = struct.unpack_from("<II", value)
    assert (tag, length) == (0xE000FFFE, 4 * frames)
    offsets = struct.unpack_from(f"<{frames}I", value, 8)
    place = 8 + length
    for offset in offsets:
        assert place == 8 + length + offset
        tag, size = struct.unpack_from("<II", value, place)
        assert tag == 0xE000FFFE and size % 2 == 0
        place += 8 + size
    # pydicom strips the delimiter that ends the sequence.
    assert len(value) == place and case.path.read_bytes().endswith(struct.pack("<II", 0xE0DDFFFE, 0))


# If only SliceThickness is given, dcmqi takes it for the distance between slices, with BINARY, too. It then loses
# some overlapping slices.
@cases(sorted(set(VOLUMES) - {"reversed", *REAL}), ["native", "rle"])
def test_dcmqi(case, tmp_path):
    """Slicer's reader, which does not know HTJ2K, gives one image of all segments. Every voxel is in its place,
    with the number of the segment that the JSON next to it describes."""
    tool = shutil.which("segimage2itkimage") or shutil.which(Path(sys.executable).with_name("segimage2itkimage"))
    if tool is None:
        pytest.skip("dcmqi (PyPI) is not installed")
    done = subprocess.run([tool, "--inputDICOM", case.path, "--outputDirectory", tmp_path, "--outputType", "nifti",
                           "--mergeSegments"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = tmp_path.glob("*.nii.gz")
    image = SimpleITK.ReadImage(str(file))
    found = SimpleITK.GetArrayFromImage(image).astype(int)
    # The image spans the existing frames, in ITK's slice order, so voxels are compared by position.
    x, y, z = np.nonzero(case.labels)
    assert np.count_nonzero(found) == len(x)
    positions = np.array([source["position"] for source in case.sources], dtype=float)
    shared = case.seg.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    between_rows, between_columns = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    points = positions[z] + np.outer(x, orientation[0] * between_columns) + np.outer(y, orientation[1] * between_rows)
    for index in random.Random(3).sample(range(len(x)), min(400, len(x))):
        i, j, k = image.TransformPhysicalPointToIndex([float(v) for v in points[index]])
        assert found[k, j, i] == case.labels[x[index], y[index], z[index]]
    described = json.loads(next(tmp_path.glob("*.json")).read_text())["segmentAttributes"]
    numbers = [item["labelID"] for group in described for item in group]
    assert numbers == [item.SegmentNumber for item in case.dataset.SegmentSequence[1:]]


@cases(["axial"], ["native", "rle"])
def test_dciodvfy_knows_no_label_maps_yet(case):
    """Debian's dciodvfy predates DICOM 2024d: it complains only about what is specific to label maps."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    done = subprocess.run([tool, str(case.path)], capture_output=True, text=True)
    found = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))]
    assert sorted(found) == [
        "Error - Information Object Not found",
        "Error - SegmentNumber not monotonically increasing from one by one - have SegmentSequence item number 1 "
        "(from one) with SegmentNumber of 0",
    ]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    run("phantom", "--out", folder, "--size", 64, "--slices", 24)
    return folder, import_dicom(folder / "dicom", folder / "store")


def numbers(path):
    """The label map, axes (row, column, slice), along the normal."""
    return highdicom.seg.segread(path).get_volume(combine_segments=True)


def test_run_makes_both_types(phantom, tmp_path):
    folder, _ = phantom
    sizes = {}
    for encoding, uid in ENCODINGS.items():
        out = tmp_path / encoding
        report = json.loads(run("run", folder / "dicom", "--model", ROOT / "model/ct_phantom", "--out", out, "--output",
                                "dicom-seg,dicom-seg-labelmap,nifti", "--transfer-syntax", encoding))
        binary, label_map, nifti = (Path(output["uri"].removeprefix("file://")) for output in report["outputs"])
        assert [output["kind"] for output in report["outputs"]] == ["dicom-seg", "dicom-seg-labelmap", "nifti"]
        data = pydicom.dcmread(label_map)
        assert data.file_meta.TransferSyntaxUID == uid
        np.testing.assert_array_equal(numbers(label_map).array, numbers(binary).array)
        found = np.asarray(nibabel.load(nifti).dataobj)
        for segment in report["segments"]:
            place = segment["in"]
            assert place["dicom-seg-labelmap"] == place["dicom-seg"]
            number = place["dicom-seg-labelmap"]["segmentNumber"]
            assert (data.pixel_array == number).sum() == segment["voxels"]
            assert (found == place["nifti"]["value"]).sum() == segment["voxels"]
        sizes[encoding] = label_map.stat().st_size
    assert sizes["rle"] < sizes["native"] and sizes["htj2k"] < sizes["native"], sizes


def test_requests_and_packages_choose_the_encoding(phantom, tmp_path):
    folder, request = phantom
    bundle = shutil.copytree(ROOT / "model/ct_phantom", tmp_path / "bundle")
    serving = json.loads((bundle / "serving.json").read_text()) if (bundle / "serving.json").exists() else {}
    serving |= {"outputs": ["dicom-seg-labelmap"], "segmentation": {"transferSyntax": "htj2k"}}
    (bundle / "serving.json").write_text(json.dumps(serving))
    with emulate(folder / "store") as ahi, serve(bundle, ahi.address) as server:
        def made(body, **headers):
            status, _, answer = post(server.address, request | body, **headers)
            assert status == 200, answer
            if headers:
                return pydicom.dcmread(pydicom.filebase.DicomBytesIO(answer))
            [output] = json.loads(answer)["results"][0]["outputs"]
            assert output["kind"] == body.get("outputs", ["dicom-seg-labelmap"])[0]
            return pydicom.dcmread(pydicom.filebase.DicomBytesIO(base64.b64decode(output["data"])))

        usual = made({})
        assert usual.file_meta.TransferSyntaxUID == ENCODINGS["htj2k"]
        native = made({"segmentation": {"transferSyntax": "native"}})
        assert native.file_meta.TransferSyntaxUID == ENCODINGS["native"]
        np.testing.assert_array_equal(usual.pixel_array, native.pixel_array)
        # The same image in another encoding.
        assert usual.SOPInstanceUID == native.SOPInstanceUID
        assert made({}, Accept="application/dicom").SegmentationType == "LABELMAP"
        binary = made({"outputs": ["dicom-seg"]})
        assert binary.SegmentationType == "BINARY" and binary.SOPInstanceUID != usual.SOPInstanceUID
        assert made({"outputs": ["dicom-seg"]}, Accept="application/dicom").SegmentationType == "BINARY"
        status, _, answer = post(server.address, request | {"segmentation": {"transferSyntax": "jpeg"}})
        assert status == 400 and b"segmentation.transferSyntax" in answer, answer
