"""Pictures and meshes of results, read by the tools that users have: Pillow, pydicom, trimesh."""

import io
import json
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import onnx
import pydicom
import pytest
import trimesh
from onnx import TensorProto, helper
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from local import run
from tiny import bundle

KINDS = ["preview", "secondary-capture", "stl", "glb", "nifti"]
# The colours of segments that define none, in their order.
COLORS = {"large": (230, 60, 60), "small": (70, 180, 80)}
# What the scans show of the patient: two balls, each with its centre in LPS+ millimetres, radius and value.
BALLS = {"large": ((-20.0, -12.0, 3.0), 11.0, 200), "small": ((22.0, 14.0, 2.0), 6.0, 500)}
# How volumes are scanned: the directions of rows, columns and slices, spacing and size along each.
SCANS = {
    "axial": ([1, 0, 0], [0, 1, 0], [0, 0, 1], (1.0, 1.0, 2.5), (96, 80, 26)),
    "feet_last": ([1, 0, 0], [0, 1, 0], [0, 0, -1], (1.0, 1.0, 2.5), (96, 80, 26)),
    "sagittal": ([0, 1, 0], [0, 0, -1], [1, 0, 0], (0.8, 0.8, 3.0), (100, 82, 32)),
    "coronal": ([1, 0, 0], [0, 0, -1], [0, 1, 0], (0.9, 0.9, 2.0), (106, 72, 40)),
    "oblique": ([0.98, 0.199, 0], [-0.199, 0.98, 0], [0, 0, 1], (1.0, 1.0, 2.0), (96, 80, 33)),
}


def scan(folder, name, balls=BALLS):
    """A CT of the patient's body, with the middle of the volume at the origin; returns its folder."""
    *directions, spacing, size = SCANS[name]
    rows, columns, slices = (np.array(direction, float) for direction in directions)
    steps = [rows * spacing[0], columns * spacing[1], slices * spacing[2]]
    origin = -sum(step * (n - 1) / 2 for step, n in zip(steps, size))
    x, y, z = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    points = origin + x[..., None] * steps[0] + y[..., None] * steps[1] + z[..., None] * steps[2]
    values = np.where(((points / [44, 36, 60]) ** 2).sum(-1) < 1, -20, -1000)
    for centre, radius, value in balls.values():
        values[((points - centre) ** 2).sum(-1) <= radius**2] = value
    folder.mkdir(parents=True)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(size[2]):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.PatientName, data.PatientID = "Nobody^Zebediah", "ZZ-4711"
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20260101", "120000", "1", ""
        data.PatientBirthDate, data.PatientSex, data.ReferringPhysicianName = "19700101", "O", ""
        data.Modality, data.SeriesNumber, data.InstanceNumber = "CT", 3, k + 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.BodyPartExamined, data.PatientPosition, data.Manufacturer = "ABDOMEN", "HFS", "none"
        data.KVP, data.AcquisitionNumber, data.PositionReferenceIndicator = 120, 1, ""
        data.ImagePositionPatient = [f"{v:.6f}" for v in origin + k * steps[2]]
        data.ImageOrientationPatient = [f"{v:.6f}" for v in (*rows / np.linalg.norm(rows), *columns / np.linalg.norm(columns))]
        data.PixelSpacing, data.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        data.Columns, data.Rows = size[0], size[1]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, 0, "HU"
        data.WindowCenter, data.WindowWidth = [50, -600], [400, 1500]
        data.PixelData = values[:, :, k].T.astype("<i2").tobytes()
        data.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def model(folder):
    """Values above 50 belong to the large ball, those above 300 to the small one."""
    folder = bundle(folder, 1)
    described = json.loads((folder / "configs/metadata.json").read_text())
    output = described["network_data_format"]["outputs"]["pred"]
    output.update(num_channels=3, channel_def={"0": "background", "1": "large", "2": "small"})
    (folder / "configs/metadata.json").write_text(json.dumps(described))
    value = lambda name, channels: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "x", "y", "z"])
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [3, 1, 1, 1, 1], [0.0, 1.0, 2.0]),
        helper.make_tensor("b", TensorProto.FLOAT, [3], [0.0, -50.0, -350.0]),
    ]
    graph = helper.make_graph([helper.make_node("Conv", ["image", "w", "b"], ["pred"])], "balls",
                              [value("image", 1)], [value("pred", 3)], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              folder / "models/model.onnx")
    return folder


class Result:
    """The program's outputs for a scan."""

    def __init__(self, dicom, model, out, kinds=KINDS):
        self.report = json.loads(run("run", dicom, "--model", model, "--out", out, "--output", ",".join(kinds)))
        self.files = {}
        for output in self.report["outputs"]:
            self.files[output["kind"]] = Path(output["uri"].removeprefix("file://"))
        assert list(self.files) == list(kinds)
        self.segments = {segment["label"].lower(): segment for segment in self.report["segments"]}

    def labels(self):
        """The label map, and its affine to LPS+."""
        image = nibabel.load(self.files["nifti"])
        return np.asarray(image.dataobj), np.diag([-1, -1, 1, 1]) @ image.affine


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return model(tmp_path_factory.mktemp("model") / "balls")


@pytest.fixture(scope="module")
def results(tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("pictures")
    made = {}

    def result(name):
        if name not in made:
            made[name] = Result(scan(folder / name / "dicom", name), network, folder / name / "out")
        return made[name]

    return result


def centre(pixels, color):
    """The centre of the pixels of a colour: column and row."""
    rows, columns = np.nonzero((pixels == color).all(-1))
    assert len(rows) > 20, f"{color} is not there"
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("name", SCANS)
def test_previews_show_the_patient_in_radiological_convention(results, name):
    result = results(name)
    pixels = np.array(Image.open(result.files["preview"]))
    height, width, channels = pixels.shape
    assert channels == 3 and width <= 1200 and height <= 500
    *directions, spacing, size = SCANS[name]
    axis_of = [int(np.argmax([abs(direction[i]) for direction in directions])) for i in range(3)]
    length = [size[axis] * spacing[axis] for axis in axis_of]
    left, tolerance = 8, 5
    panels = {}
    for plane, across, down in (("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2)):
        scale = 388 / max(length[across], length[down])
        size_of = [round(length[across] * scale), round(length[down] * scale)]
        panels[plane] = (left, size_of, scale, across, down)
        left += size_of[0] + 8
    tallest = max(size_of[1] for _, size_of, *_ in panels.values())
    for plane, (left, size_of, scale, across, down) in panels.items():
        top = 24 + (tallest - size_of[1]) // 2
        panel = pixels[top : top + size_of[1], left : left + size_of[0]]
        # The planes go through the middle of the larger ball; both balls are in the axial slice.
        for label in ("large", "small") if plane == "axial" else ("large",):
            place = np.array(BALLS[label][0])
            if name == "oblique":
                place = np.array(directions) @ place
            # To the patient's left, back and feet.
            sign = [1, 1, -1]
            expected = [size_of[0] / 2 + sign[across] * place[across] * scale,
                        size_of[1] / 2 + sign[down] * place[down] * scale]
            found = centre(panel, COLORS[label])
            assert np.abs(found - expected).max() < tolerance, (plane, label, found, expected)
        # The body is grey where no segment is: -20 HU in a window from -150 to 250.
        grey = panel[int(size_of[1] * 0.75), int(size_of[0] * 0.55)]
        assert len(set(grey.tolist())) == 1 and abs(int(grey[0]) - 83) < 8, (plane, grey)


def test_a_secondary_capture_is_the_preview_in_the_study(results, network, tmp_path):
    result = results("axial")
    data = pydicom.dcmread(result.files["secondary-capture"])
    assert data.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert np.array_equal(data.pixel_array, np.array(Image.open(result.files["preview"])))
    sources = [pydicom.dcmread(path) for path in sorted(result.files["preview"].parents[1].glob("dicom/*.dcm"))]
    assert data.StudyInstanceUID == sources[0].StudyInstanceUID and data.PatientID == sources[0].PatientID
    assert data.SeriesInstanceUID != sources[0].SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in data.SourceImageSequence} == {s.SOPInstanceUID for s in sources}
    assert (data.ConversionType, data.BurnedInAnnotation) == ("WSD", "NO")
    assert list(data.ImageType) == ["DERIVED", "SECONDARY"]
    assert result.files["secondary-capture"].name == "large-small.preview.dcm"
    # The same request creates the same instance again.
    again = Result(result.files["preview"].parents[1] / "dicom", network, tmp_path / "out", ["secondary-capture"])
    assert pydicom.dcmread(again.files["secondary-capture"]).SOPInstanceUID == data.SOPInstanceUID


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of dicom3tools")
def test_dciodvfy_finds_nothing_in_a_secondary_capture(results):
    path = results("axial").files["secondary-capture"]
    checked = subprocess.run(["dciodvfy", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = checked.stdout.splitlines()
    assert "SCImage" in lines, lines
    assert [line for line in lines if line.startswith(("Error", "Warning"))] == []


@pytest.mark.parametrize("kind", ["preview", "stl", "glb"])
def test_no_name_of_the_patient_is_in_other_files(results, kind):
    content = results("axial").files[kind].read_bytes()
    assert b"Nobody" not in content and b"4711" not in content


@pytest.mark.parametrize("name", SCANS)
def test_meshes_are_closed_and_have_the_voxels_volume(results, name):
    result = results(name)
    labels, affine = result.labels()
    voxel = abs(np.linalg.det(affine[:3, :3]))
    scene = trimesh.load(result.files["glb"])
    assert set(scene.geometry) == {result.segments["large"]["label"], result.segments["small"]["label"]}
    total = 0.0
    for number, (label, color) in enumerate(COLORS.items(), start=1):
        mesh = scene.geometry[result.segments[label]["label"]]
        voxels = labels == number
        assert result.segments[label]["voxels"] == voxels.sum() > 100
        assert result.segments[label]["in"]["glb"] == {"segmentNumber": number}
        volume = voxels.sum() * voxel
        total += volume
        assert mesh.is_watertight and mesh.is_winding_consistent
        # In millimetres of LPS+.
        assert abs(mesh.volume / volume - 1) < 0.01
        middle = affine[:3, :3] @ np.argwhere(voxels).mean(0) + affine[:3, 3]
        assert np.abs(mesh.center_mass - middle).max() < 0.1
        assert np.abs(middle - BALLS[label][0]).max() < 0.7
        # The file has linear light, and trimesh keeps the numbers as they are.
        linear = [((c / 255 + 0.055) / 1.055) ** 2.4 * 255 for c in color]
        assert np.abs(np.array(mesh.visual.material.baseColorFactor[:3], float) - linear).max() <= 1
        # In glTF's terms: metres, Y up, the front towards Z.
        transform, _ = scene.graph[result.segments[label]["label"]]
        placed = mesh.copy().apply_transform(transform)
        x, y, z = middle / 1000
        assert np.abs(placed.center_mass - [x, z, -y]).max() < 1e-4

    header = result.files["stl"].read_bytes()[:80]
    assert not header.startswith(b"solid") and b"SPACE=LPS" in header
    mesh = trimesh.load(result.files["stl"])
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert len(mesh.faces) == sum(len(part.faces) for part in scene.geometry.values())
    assert abs(mesh.volume / total - 1) < 0.01
    # Smooth: no vertex is far from the balls' surfaces, although the slices are thick.
    distances = [np.abs(np.linalg.norm(mesh.vertices - centre_of, axis=1) - radius) for centre_of, radius, _ in BALLS.values()]
    assert np.min(distances, axis=0).mean() < 0.5


def test_a_result_without_voxels_has_a_picture_and_empty_meshes(network, tmp_path):
    result = Result(scan(tmp_path / "dicom", "axial", balls={}), network, tmp_path / "out")
    assert any("no voxel" in warning for warning in result.report["warnings"])
    pixels = np.array(Image.open(result.files["preview"]))
    assert not any((pixels == color).all(-1).any() for color in COLORS.values())
    assert result.files["stl"].read_bytes()[80:] == bytes(4)
    glb = result.files["glb"].read_bytes()
    described = json.loads(glb[20 : 20 + int.from_bytes(glb[12:16], "little")])
    assert "meshes" not in described and len(glb) == int.from_bytes(glb[8:12], "little")
    assert trimesh.load(io.BytesIO(glb), file_type="glb").is_empty


def test_kinds_stand_by_themselves(results, network, tmp_path):
    """Each kind is the same, whatever else is requested."""
    whole = results("axial")
    for kind in ("preview", "glb", "stl"):
        alone = Result(whole.files["stl"].parents[1] / "dicom", network, tmp_path / kind, [kind])
        assert alone.files[kind].read_bytes() == whole.files[kind].read_bytes()
        assert alone.files[kind].name == f"large-small.{'preview.png' if kind == 'preview' else kind}"
