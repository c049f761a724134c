"""Measurements of segments, computed again with NumPy and ITK from the source's pixels and the DICOM SEG: those in
the report, and those in the DICOM SR as read by highdicom, dcmqi, DCMTK and dciodvfy."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.sr.codedict import codes

from local import BINARY, ENVIRONMENT, ROOT, run

MODEL = ROOT / "model/ct_phantom"
DERIVATIONS = {
    "Mean": np.mean,
    "Standard Deviation": np.std,
    "Minimum": np.min,
    "Maximum": np.max,
    "Median": np.median,
}


def segment(folder, *flags):
    return subprocess.run(
        [BINARY, "run", folder / "phantom/dicom", "--model", MODEL, "--out", folder / "out", "--overwrite", *flags],
        capture_output=True, text=True, env=ENVIRONMENT,
    )


class Case:
    """A phantom, segmented and measured."""

    def __init__(self, folder):
        run("phantom", "--out", folder / "phantom", "--size", 80, "--slices", 48, "--spacing", 5)
        done = segment(folder, "--output", "dicom-sr,dicom-seg")
        assert done.returncode == 0, done.stderr
        self.report = json.loads(done.stdout)
        files = {o["kind"]: Path(o["uri"].removeprefix("file://")) for o in self.report["outputs"]}
        assert list(files) == ["dicom-sr", "dicom-seg"], "in the order asked for"
        self.sr_file = files["dicom-sr"]
        self.sr = highdicom.sr.Comprehensive3DSR.from_dataset(pydicom.dcmread(self.sr_file))
        self.seg = highdicom.seg.segread(files["dicom-seg"])
        sources = [pydicom.dcmread(file) for file in (folder / "phantom/dicom").iterdir()]
        self.sources = sorted(sources, key=lambda s: s.ImagePositionPatient[2])
        # Axes (slice, row, column).
        pixels = [s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in self.sources]
        self.values = np.stack(pixels)
        self.masks = self.seg.get_pixels_by_source_instance(
            [s.SOPInstanceUID for s in self.sources], combine_segments=False, assert_missing_frames_are_empty=True
        ).astype(bool)
        first, second = (np.array(s.ImagePositionPatient, float) for s in self.sources[:2])
        assert self.sources[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
        between_rows, between_columns = (float(x) for x in self.sources[0].PixelSpacing)
        # Along X, Y and Z.
        self.spacing = [between_columns, between_rows, second[2] - first[2]]
        self.origin = first

    def mask(self, number):
        return self.masks[..., number - 1]

    def millilitres(self, number):
        return self.mask(number).sum() * np.prod(self.spacing) / 1000


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("measured"))


def groups(case):
    return case.sr.content.get_volumetric_roi_measurement_groups()


def test_statistics_are_those_of_numpy(case):
    found = 0
    for segment in case.report["segments"]:
        mask = case.mask(segment["number"])
        assert segment["voxels"] == mask.sum()
        if not segment["voxels"]:
            assert "statistics" not in segment
            continue
        found += 1
        values, told = case.values[mask], segment["statistics"]
        for name, expected in [
            ("mean", values.mean()), ("standardDeviation", values.std()), ("minimum", values.min()),
            ("maximum", values.max()), ("median", np.median(values)),
        ]:
            assert told[name] == pytest.approx(expected, rel=1e-12), (segment["label"], name)
        for percentile, value in told["percentiles"].items():
            assert value == pytest.approx(np.percentile(values, int(percentile)), rel=1e-12)
        z, y, x = (np.flatnonzero(mask.any(axis=axes)) for axes in [(1, 2), (0, 2), (0, 1)])
        box = segment["boundingBox"]
        assert box["start"] == [x[0], y[0], z[0]] and box["end"] == [x[-1] + 1, y[-1] + 1, z[-1] + 1]
        sides = np.subtract(box["end"], box["start"]) * case.spacing
        np.testing.assert_allclose(box["millimetres"], sides, rtol=1e-9)
        ends = ["firstColumn", "lastColumn", "firstRow", "lastRow", "firstSlice", "lastSlice"]
        edges = [mask[:, :, 0], mask[:, :, -1], mask[:, 0], mask[:, -1], mask[0], mask[-1]]
        assert segment["touches"] == [end for end, edge in zip(ends, edges) if edge.any()]
    assert found >= 3
    assert case.report["units"] == "HU"


def test_places_and_components_are_those_of_itk(case):
    """ITK's physical space is the patient's, LPS."""
    for segment in case.report["segments"]:
        mask = case.mask(segment["number"])
        if not mask.any():
            continue
        image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing([float(s) for s in case.spacing])
        image.SetOrigin([float(o) for o in case.origin])
        shape = SimpleITK.LabelShapeStatisticsImageFilter()
        shape.Execute(image)
        np.testing.assert_allclose(segment["centroidLPS"], shape.GetCentroid(1), rtol=1e-9, atol=1e-9)
        components = SimpleITK.ConnectedComponent(image, True)
        sizes = np.bincount(SimpleITK.GetArrayViewFromImage(components).ravel())[1:]
        assert segment["components"]["count"] == len(sizes), segment["label"]
        assert segment["components"]["largestShare"] == pytest.approx(sizes.max() / sizes.sum())


def test_highdicom_finds_every_measurement(case):
    report = case.sr.content
    found = groups(case)
    assert len(found) == len(case.report["segments"])
    for number, group in enumerate(found, 1):
        description = case.seg.get_segment_description(number)
        assert group.tracking_identifier == description.segment_label
        assert group.tracking_uid == description.tracking_uid
        told = case.report["segments"][number - 1]
        assert told["in"]["dicom-sr"] == {"trackingUID": group.tracking_uid}
        assert group.finding_type == description.segmented_property_type
        assert group.finding_category == description.segmented_property_category
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == case.seg.SOPInstanceUID
        assert segment.referenced_segment_numbers == [number]
        assert segment.source_series_for_segmentation.value == case.sources[0].SeriesInstanceUID
        if description.segmented_property_category == codes.SCT.AnatomicalStructure:
            [site] = group.finding_sites
            assert site.value == description.segmented_property_type

        [volume] = group.get_measurements(name=codes.SCT.Volume)
        assert volume.unit == codes.UCUM.CubicCentimeter
        assert volume.value == pytest.approx(case.millilitres(number), rel=1e-12)
        values = case.values[case.mask(number)]
        measured = group.get_measurements(name=codes.DCM.AttenuationCoefficient)
        assert len(measured) == (len(DERIVATIONS) if len(values) else 0)
        for measurement in measured:
            assert measurement.unit == codes.UCUM.HounsfieldUnit
            expected = DERIVATIONS[measurement.derivation.meaning](values)
            assert measurement.value == pytest.approx(expected, rel=1e-12), (number, measurement.derivation)
        assert {m.derivation.meaning for m in measured} == (set(DERIVATIONS) if len(values) else set())

    first = found[0]
    [same] = report.get_volumetric_roi_measurement_groups(tracking_uid=first.tracking_uid)
    assert same.tracking_identifier == first.tracking_identifier
    by_type = report.get_volumetric_roi_measurement_groups(finding_type=first.finding_type)
    assert first.tracking_uid in [group.tracking_uid for group in by_type]
    by_object = report.get_volumetric_roi_measurement_groups(referenced_sop_instance_uid=case.seg.SOPInstanceUID)
    assert len(by_object) == len(found)
    [observer] = report.get_observer_contexts()
    attributes = observer.observer_identifying_attributes
    assert attributes.name == attributes.manufacturer_name == "ahi-inference"
    assert attributes.model_name == case.seg.ManufacturerModelName


def test_evidence_names_images_and_segmentation(case):
    uids = {uid for _, _, uid, _ in case.sr.get_evidence(current_procedure_only=True)}
    assert uids == {s.SOPInstanceUID for s in case.sources} | {case.seg.SOPInstanceUID}
    library = [item for item in case.sr.content[0].ContentSequence if item.name == codes.DCM.ImageLibrary]
    [group] = library[0].ContentSequence
    images = [item for item in group.ContentSequence if item.ValueType == "IMAGE"]
    listed = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images]
    assert listed == [s.SOPInstanceUID for s in case.sources]


def test_attributes(case):
    sr, source = case.sr, case.sources[0]
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
        assert sr[keyword].value == source[keyword].value, keyword
    assert (sr.Modality, sr.CompletionFlag, sr.VerificationFlag) == ("SR", "COMPLETE", "UNVERIFIED")
    assert sr.SeriesInstanceUID not in (case.seg.SeriesInstanceUID, source.SeriesInstanceUID)
    parameters = {
        item.TextValue
        for group in groups(case)
        for item in group[0].ContentSequence
        if item.name == codes.DCM.AlgorithmParameters
    }
    assert parameters == {f"network SHA-256={case.report['networkSha256']}"}


def test_dcmqi_reads_the_same(case, tmp_path):
    tool = Path(sys.executable).parent / "tid1500reader"
    read = tmp_path / "read.json"
    arguments = [tool, "--inputDICOM", case.sr_file, "--outputMetadata", read]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(read.read_text())
    assert (document["VerificationFlag"], document["CompletionFlag"]) == ("UNVERIFIED", "COMPLETE")
    assert document["compositeContext"] == [case.seg.SOPInstanceUID]
    assert set(document["imageLibrary"]) == {s.SOPInstanceUID for s in case.sources}
    assert len(document["Measurements"]) == len(case.report["segments"])
    for number, (group, told) in enumerate(zip(document["Measurements"], case.report["segments"]), 1):
        assert group["TrackingIdentifier"] == told["label"]
        assert group["ReferencedSegment"] == number
        assert group["segmentationSOPInstanceUID"] == case.seg.SOPInstanceUID
        assert group["SourceSeriesForImageSegmentation"] == case.sources[0].SeriesInstanceUID
        assert group["Finding"]["CodeValue"] == told["type"]["value"]
        items = {
            (item["quantity"]["CodeMeaning"], item.get("derivationModifier", {}).get("CodeMeaning")): item
            for item in group["measurementItems"]
        }
        volume = items.pop(("Volume", None))
        assert float(volume["value"]) == pytest.approx(case.millilitres(number), rel=1e-9)
        values = case.values[case.mask(number)]
        assert len(items) == (len(DERIVATIONS) if len(values) else 0)
        for (quantity, derivation), item in items.items():
            assert quantity == "Attenuation Coefficient" and item["units"]["CodeValue"] == "[hnsf'U]"
            assert float(item["value"]) == pytest.approx(DERIVATIONS[derivation](values), rel=1e-9)


@pytest.mark.parametrize("command", [("dciodvfy",), ("dsrdump",)])
def test_validators_find_no_error(case, command):
    tool = shutil.which(command[0])
    if tool is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([tool, *command[1:], case.sr_file], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    bad = ("Error", "E:", "W:", "Warning")
    assert not [line for line in lines if line.startswith(bad)], lines
    assert done.returncode == 0
    assert lines


def test_a_report_needs_a_segmentation(case, tmp_path):
    done = segment(case.sr_file.parents[1], "--output", "dicom-sr")
    assert done.returncode != 0
    assert "ask for dicom-seg beside it" in done.stderr, done.stderr


def test_a_label_map_is_referred_to_where_it_is_the_only_segmentation(case):
    folder = case.sr_file.parents[1]
    for wanted, kind in [
        ("dicom-seg-labelmap,dicom-sr", "dicom-seg-labelmap"),
        ("dicom-sr,dicom-seg-labelmap,dicom-seg", "dicom-seg"),
    ]:
        done = segment(folder, "--output", wanted)
        assert done.returncode == 0, done.stderr
        files = {o["kind"]: o["uri"].removeprefix("file://") for o in json.loads(done.stdout)["outputs"]}
        seg = pydicom.dcmread(files[kind])
        report = highdicom.sr.Comprehensive3DSR.from_dataset(pydicom.dcmread(files["dicom-sr"]))
        for number, group in enumerate(report.content.get_volumetric_roi_measurement_groups(), 1):
            referred = group.referenced_segment
            assert referred.referenced_sop_class_uid == seg.SOPClassUID
            assert referred.referenced_sop_instance_uid == seg.SOPInstanceUID
            assert referred.referenced_segment_numbers == [number]
        series = {uid for _, uid in report.get_evidence_series()}
        assert series == {case.sources[0].SeriesInstanceUID, seg.SeriesInstanceUID}
