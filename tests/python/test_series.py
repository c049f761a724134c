"""Real series that are not one clean stack, through the program and through dcm2niix.

The model gives every voxel the label of the nearest of 100 values. A label map is thus the volume as the network
saw it, in steps, and its positions and voxels can be compared with another converter's result for the same files.
"""

import json
import subprocess
import zipfile
from pathlib import Path

import dcm2niix
import nibabel
import numpy as np
import onnx
import pydicom
import pytest
import SimpleITK
from onnx import TensorProto, helper

import tiny
from local import BINARY, ENVIRONMENT, SHARED, emulate, import_dicom, post, serve

REAL = SHARED / "data/real"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not here")

CLASSES = 100


class Steps:
    """Equally spaced values, of which the model finds the nearest."""

    def __init__(self, low, high):
        self.values = np.linspace(low, high, CLASSES, dtype=np.float32)

    def labels(self, volume):
        """The label of each voxel, and which voxels lie too close to halfway between two values."""
        place = (np.asarray(volume, np.float64) - self.values[0]) / (self.values[1] - self.values[0])
        place = np.clip(place, 0, CLASSES - 1)
        unsure = np.abs(place - np.floor(place) - 0.5) < 0.02
        return np.floor(place + 0.5).astype(int), unsure

    def bundle(self, folder, modality="MR"):
        """A MONAI bundle that finds the nearest value: the largest of 2cx - c² belongs to the c nearest to x."""
        folder = tiny.bundle(folder, 0)
        weights = [
            helper.make_tensor("w", TensorProto.FLOAT, [CLASSES, 1, 1, 1, 1], 2 * self.values),
            helper.make_tensor("b", TensorProto.FLOAT, [CLASSES], -self.values**2),
        ]
        value = lambda name, channels: helper.make_tensor_value_info(
            name, TensorProto.FLOAT, ["n", channels, "x", "y", "z"]
        )
        graph = helper.make_graph(
            [helper.make_node("Conv", ["image", "w", "b"], ["pred"])],
            "steps", [value("image", 1)], [value("pred", CLASSES)], weights,
        )
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "models/model.onnx")
        path = folder / "configs/metadata.json"
        metadata = json.loads(path.read_text())
        formats = metadata["network_data_format"]
        formats["inputs"]["image"]["modality"] = modality
        formats["outputs"]["pred"]["num_channels"] = CLASSES
        formats["outputs"]["pred"]["channel_def"] = {"0": "background"} | {
            str(i): f"step {i}" for i in range(1, CLASSES)
        }
        path.write_text(json.dumps(metadata))
        return folder


def unpack(name, folder):
    with zipfile.ZipFile(REAL / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder


def segment(dicom, bundle, out, *flags):
    """The reports and the process of a run, which may fail."""
    done = subprocess.run(
        [BINARY, "run", dicom, "--model", bundle, "--out", out, *map(str, flags)],
        capture_output=True, text=True, env=ENVIRONMENT,
    )
    if done.returncode:
        return [], done
    reports = json.loads(done.stdout)
    return reports if isinstance(reports, list) else [reports], done


def file_of(report, kind):
    [uri] = [output["uri"] for output in report["outputs"] if output["kind"] == kind]
    return Path(uri.removeprefix("file://"))


def converted(dicom, folder):
    """dcm2niix's volumes by name, voxels as real values, axes (x, y, z[, t]), in RAS."""
    folder.mkdir()
    subprocess.run(
        [dcm2niix.bin, "-z", "n", "-p", "n", "-f", "%p_%s_%z", "-o", folder, dicom], check=True, capture_output=True
    )
    return {path.name: nibabel.load(path) for path in sorted(folder.glob("*.nii"))}


def label_map(path):
    """A segmentation's labels by the position of each plane along the normal."""
    data = pydicom.dcmread(path)
    frames = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")
    frames = frames[: data.NumberOfFrames * data.Rows * data.Columns]
    frames = frames.reshape(data.NumberOfFrames, data.Rows, data.Columns)
    planes = {}
    for frame, groups in zip(frames, data.PerFrameFunctionalGroupsSequence):
        position = tuple(map(float, groups.PlanePositionSequence[0].ImagePositionPatient))
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        plane = planes.setdefault(position, np.zeros(frame.shape, int))
        plane[frame.astype(bool)] = segment
    return planes


def slices(dicom):
    """Heights above the lowest slice, positions and values of single-slice files, from the lowest up."""
    found = []
    for path in dicom.rglob("*.dcm"):
        data = pydicom.dcmread(path)
        values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        row, column = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
        position = np.array(data.ImagePositionPatient, float)
        found.append((position @ np.cross(row, column), tuple(position), values))
    found.sort(key=lambda one: one[0])
    return [(height - found[0][0], position, values) for height, position, values in found]


def same(found, steps, expected):
    labels, unsure = steps.labels(expected)
    wrong = (found != labels) & ~unsure
    assert not wrong.any(), f"{wrong.sum()} of {wrong.size} voxels differ"


@pytest.fixture(scope="module")
def tilted(tmp_path_factory):
    """An unevenly spaced stack from a tilted gantry, and the model for it."""
    folder = tmp_path_factory.mktemp("tilted")
    steps = Steps(-1100, 1500)
    return unpack("ct_tilted_uneven_ge", folder / "dicom"), steps, steps.bundle(folder / "bundle", "CT")


def test_an_uneven_stack_is_refused_with_what_can_be_done(tilted, tmp_path):
    dicom, _, bundle = tilted
    _, done = segment(dicom, bundle, tmp_path / "out")
    assert done.returncode != 0 and "1.081 mm apart" in done.stderr and "interpolate" in done.stderr, done.stderr


def test_an_uneven_tilted_stack_is_interpolated(tilted, tmp_path):
    dicom, steps, bundle = tilted
    flags = ("--gaps", "interpolate", "--output", "dicom-seg,nifti")
    [report], done = segment(dicom, bundle, tmp_path / "out", *flags)
    assert report, done.stderr
    source = slices(dicom)
    heights = np.array([height for height, _, _ in source])
    columns, rows, count = report["geometry"]["dimensions"]
    step = heights[-1] / (count - 1)
    assert step <= np.diff(heights).min() + 1e-6
    assert any("interpolated" in warning for warning in report["warnings"]), report["warnings"]

    # The segmentation is on the source's own slices and shows the grid's nearest ones.
    planes = label_map(file_of(report, "dicom-seg"))
    assert set(planes) == {position for _, position, _ in source}
    coincident = 0
    for height, position, values in source:
        grid = round(height / step) * step
        above = min(np.searchsorted(heights, grid, side="right"), len(heights) - 1)
        weight = (grid - heights[above - 1]) / (heights[above] - heights[above - 1])
        weight = round(weight) if abs(weight - round(weight)) < 0.02 else weight
        expected = source[above - 1][2] * (1 - weight) + source[above][2] * weight
        same(planes[position], steps, expected)
        if abs(grid - height) < 0.01:
            same(planes[position], steps, values)
            coincident += 1
    assert coincident >= 2, "the first and the last at least"

    # dcm2niix writes the original slices next to the resampled ones.
    volumes = converted(dicom, tmp_path / "niix")
    [kept] = [v for v in volumes.values() if v.shape[2] == len(source)]
    voxels = np.asarray(kept.dataobj)
    for index, (_, position, values) in enumerate(source):
        assert (voxels[:, ::-1, index].T == values).all()

    # Every reader can open the NIfTI file, and finds the labels where the segmentation has them.
    path = file_of(report, "nifti")
    image = SimpleITK.ReadImage(str(path))
    assert nibabel.load(path).shape == image.GetSize()
    labels = SimpleITK.GetArrayFromImage(image)
    first = pydicom.dcmread(next(dicom.rglob("*.dcm")))
    row, column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    spacing = [float(v) for v in first.PixelSpacing]
    random = np.random.default_rng(1)
    for height, position, _ in source:
        if abs(round(height / step) * step - height) > 0.01:
            continue
        for y, x in random.integers(0, [rows, columns], (200, 2)):
            point = np.array(position) + row * spacing[1] * x + column * spacing[0] * y
            index = image.TransformPhysicalPointToContinuousIndex(point.tolist())
            assert abs(index[2] - round(height / step)) < 0.02
            near = [np.unique([np.floor(v + 0.499), np.ceil(v - 0.499)]).astype(int) for v in index[:2]]
            found = {labels[round(index[2]), b, a] for a in near[0] for b in near[1]}
            assert planes[position][y, x] in found, (position, x, y)


def volume_of(report):
    """The NIfTI output's voxels, and its affine."""
    image = nibabel.load(file_of(report, "nifti"))
    return np.asarray(image.dataobj), image.affine


def check_against(report, steps, values, affine):
    """Checks that an output matches a dcm2niix volume in values and position, whichever way its axes run."""
    labels, own = volume_of(report)
    values = np.asarray(values)
    for axis in range(3):
        if np.dot(own[:3, axis], affine[:3, axis]) < 0:
            values = np.flip(values, axis)
            affine = affine.copy()
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
    assert labels.shape == values.shape
    assert np.abs(own - affine).max() < 0.02, (own, affine)
    same(labels, steps, values)


def test_echoes_of_an_enhanced_instance(tmp_path):
    dicom = unpack("enhanced_mr", tmp_path / "dicom") / "Philips"
    steps = Steps(-500, 5300)
    bundle = steps.bundle(tmp_path / "bundle")
    _, done = segment(dicom, bundle, tmp_path / "out")
    assert done.returncode != 0
    assert "EffectiveEchoTime=0 (32 slices of 64 × 64)" in done.stderr, done.stderr
    assert "EffectiveEchoTime=1.52 (32" in done.stderr, done.stderr
    volumes = converted(dicom, tmp_path / "niix")
    assert len(volumes) == 2 and {v.shape for v in volumes.values()} == {(64, 64, 32)}
    flags = ("--output", "nifti", "--volumes", "each")
    reports, done = segment(dicom, bundle, tmp_path / "each", *flags)
    assert [report["volume"]["number"] for report in reports] == [1, 2], done.stderr
    chosen, done = segment(
        dicom, bundle, tmp_path / "one", "--output", "nifti", "--volume", "EffectiveEchoTime=1.52"
    )
    assert chosen, done.stderr
    assert (volume_of(chosen[0])[0] == volume_of(reports[1])[0]).all()
    # The field map, in Hz, has negative values.
    field, magnitude = sorted(volumes.values(), key=lambda v: v.get_fdata().min())
    for report, volume in zip(reports, (field, magnitude)):
        check_against(report, steps, volume.get_fdata(), volume.affine)


def test_time_points_of_enhanced_instances(tmp_path):
    dicom = unpack("enhanced_mr", tmp_path / "dicom") / "Siemens"
    steps = Steps(0, 2000)
    bundle = steps.bundle(tmp_path / "bundle")
    flags = ("--output", "nifti", "--volumes", "each")
    reports, done = segment(dicom, bundle, tmp_path / "out", *flags)
    assert len(reports) == 4, done.stderr
    [volume] = converted(dicom, tmp_path / "niix").values()
    assert volume.shape == (64, 64, 6, 4)
    for time, report in enumerate(reports):
        assert report["volume"]["name"] == f"TemporalPositionIndex={time + 1}"
        check_against(report, steps, volume.get_fdata()[..., time], volume.affine)


def test_mosaics_are_refused_as_such(tmp_path):
    bundle = Steps(0, 1000).bundle(tmp_path / "bundle")
    for name in ("mr_dwi_2_volumes_mosaic", "transfer_syntaxes_mr"):
        dicom = unpack(name, tmp_path / name)
        for one in [dicom, *sorted(dicom.rglob("*.dcm"))[:1]]:
            folder = one
            if one.is_file():
                folder = tmp_path / f"{name}-single"
                folder.mkdir()
                (folder / one.name).write_bytes(one.read_bytes())
            _, done = segment(folder, bundle, tmp_path / "out")
            assert done.returncode != 0 and "mosaic" in done.stderr, done.stderr


def test_a_model_is_not_run_on_another_modality(tilted, tmp_path):
    dicom, steps, _ = tilted
    bundle = steps.bundle(tmp_path / "bundle", "MRI")
    flags = ("--gaps", "interpolate", "--output", "nifti")
    _, done = segment(dicom, bundle, tmp_path / "out", *flags)
    assert done.returncode != 0 and "Modality is CT, the model was made for MR" in done.stderr, done.stderr
    [report], _ = segment(dicom, bundle, tmp_path / "out", *flags, "--mismatch", "warn")
    assert any("made for MR" in warning for warning in report["warnings"])


def test_requests_choose_volumes_and_policies(tmp_path):
    dicom = unpack("enhanced_mr", tmp_path / "dicom") / "Philips"
    bundle = Steps(-500, 5300).bundle(tmp_path / "bundle")
    request = import_dicom(dicom, tmp_path / "store")
    out = tmp_path / "out"
    with emulate(tmp_path / "store") as ahi, serve(
        bundle, ahi.address, OUTPUT_S3_URI=f"file://{out}"
    ) as server:
        def ask(body):
            status, _, answer = post(server.address, body)
            return status, json.loads(answer)

        status, answer = ask(request)
        assert status == 422 and answer["error"]["code"] == "invalid_image", answer
        listed = answer["error"]["details"]["volumes"]
        assert [volume["attributes"] for volume in listed] == [
            {"EffectiveEchoTime": 0.0}, {"EffectiveEchoTime": 1.52}
        ]
        chosen = []
        for volume in (2, listed[1]["name"], listed[1]["attributes"]):
            status, answer = ask(request | {"volume": volume, "outputs": ["nifti"]})
            assert status == 200, answer
            assert answer["results"][0]["volume"]["number"] == 2
            chosen.append(answer["results"][0]["segments"])
        assert chosen[0] == chosen[1] == chosen[2]
        status, answer = ask(request | {"volume": 3})
        assert status == 400 and "none of the series' volumes" in answer["error"]["message"], answer

        # Both volumes of both inputs, which are the same series: no output overwrites another.
        body = {"inputs": [request, request], "policy": {"volumes": "each"}, "outputs": ["nifti", "dicom-seg"]}
        status, answer = ask(body)
        assert status == 200, answer
        results = answer["results"]
        assert [result["volume"]["number"] for result in results] == [1, 2, 1, 2]
        names = [output["fileName"] for result in answer["results"] for output in result["outputs"]]
        assert len(set(names)) == 8, names
        for result in answer["results"]:
            for output in result["outputs"]:
                assert Path(output["uri"].removeprefix("file://")).stat().st_size == output["bytes"]

        # A DICOM answer holds only one of them.
        status, _, answer = post(
            server.address, request | {"policy": {"volumes": "each"}}, Accept="application/dicom"
        )
        assert status == 406 and b"holds 2 volumes" in answer, answer
        status, _, answer = post(server.address, request | {"volume": 1}, Accept="application/dicom")
        assert status == 200 and answer[128:132] == b"DICM"

        # Every label in the NIfTI file is in the report, with its number of voxels.
        result = results[1]
        [uri] = [output["uri"] for output in result["outputs"] if output["kind"] == "nifti"]
        labels = np.asarray(nibabel.load(uri.removeprefix("file://")).dataobj)
        told = {segment["in"]["nifti"]["value"]: segment["voxels"] for segment in result["segments"]}
        assert told == {value: int((labels == value).sum()) for value in told}
        assert all(segment["in"]["dicom-seg"]["segmentNumber"] == segment["number"] for segment in result["segments"])
