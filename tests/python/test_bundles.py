"""The published bundles of the model zoo, complete, with a small network in place of their own."""

import base64
import io
import json
import shutil

import highdicom
import numpy as np
import onnx
import pydicom
import pytest
import yaml
from onnx import TensorProto, helper

from local import SHARED, emulate, import_dicom, post, run, serve

BUNDLES = SHARED / "bundles"
SEGMENTATION = {
    "spleen_ct_segmentation": 1,
    "wholeBody_ct_segmentation": 104,
    "swin_unetr_btcv_segmentation": 13,
    "renalStructures_UNEST_segmentation": 3,
    "prostate_mri_anatomy": 2,
    "wholeBrainSeg_Large_UNEST_segmentation": 132,
    "ventricular_short_axis_3label": 3,
}
BRATS = "brats_mri_segmentation"
SEQUENCES = ["T1c", "T1", "T2", "FLAIR"]
pytestmark = pytest.mark.skipif(
    not BUNDLES.exists(), reason=f"the reference material is not in {SHARED} (AHI_SHARED names its folder)"
)


def weights(inputs, outputs):
    """Weights of a single-voxel convolution whose classes differ."""
    generator = np.random.default_rng(inputs * 1000 + outputs)
    return (generator.normal(size=(outputs, inputs)).astype(np.float32),
            generator.normal(scale=0.2, size=outputs).astype(np.float32))


def network(inputs, outputs, dimensions, given=None):
    kernel, bias = given or weights(inputs, outputs)
    axes = ["x", "y", "z"][:dimensions]
    value = lambda name, channels: helper.make_tensor_value_info(
        name, TensorProto.FLOAT, ["n", channels, *axes]
    )
    shape = [outputs, inputs, *[1] * dimensions]
    tensors = [helper.make_tensor("w", TensorProto.FLOAT, shape, kernel.ravel().tolist()),
               helper.make_tensor("b", TensorProto.FLOAT, [outputs], bias.tolist())]
    graph = helper.make_graph([helper.make_node("Conv", ["image", "w", "b"], ["pred"])], "conv",
                              [value("image", inputs)], [value("pred", outputs)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bundle(name, folder):
    shutil.copytree(BUNDLES / name, folder)
    described = json.loads((folder / "configs/metadata.json").read_text())["network_data_format"]
    inputs = described["inputs"]["image"]["num_channels"]
    outputs = described["outputs"]["pred"]["num_channels"]
    inferer = json.loads((folder / "configs/inference.json").read_text())["inferer"]["_target_"]
    (folder / "models").mkdir(exist_ok=True)
    onnx.save(network(inputs, outputs, 2 if inferer == "SliceInferer" else 3), folder / "models/model.onnx")
    return folder


def series(source, folder, scale):
    """Another series on the same grid, with changed pixels."""
    folder.mkdir()
    uid = pydicom.uid.generate_uid()
    for index, path in enumerate(sorted(source.rglob("*.dcm"))):
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID = uid
        data.SeriesDescription = f"AX {folder.name} BRAIN"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        pixels = data.pixel_array.astype(np.int64)
        changed = (pixels * scale + 17 * (np.indices(pixels.shape).sum(axis=0) % 13)) % 1000
        changed[pixels == pixels.min()] = 0
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = changed.astype(data.pixel_array.dtype).tobytes()
        data.save_as(folder / f"{index}.dcm")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A phantom and four series on its grid: the store, requests by name, folders by name."""
    folder = tmp_path_factory.mktemp("images")
    size = ("--size", 48, "--spacing", 3, "--slice-spacing", 3)
    run("phantom", "--out", folder / "phantom", "--slices", 24, *size)
    run("phantom", "--out", folder / "other", "--slices", 20, *size)
    store, requests, folders = folder / "store", {}, {}
    for number, name in enumerate(SEQUENCES):
        folders[name] = series(folder / "phantom/dicom", folder / name, 3 + 2 * number)
        requests[name] = import_dicom(folders[name], store)
    requests["CT"] = import_dicom(folder / "phantom/dicom", store)
    requests["other"] = import_dicom(folder / "other/dicom", store)
    return store, requests, folders


def segmentation(answer):
    output = json.loads(answer[2])["results"][0]["outputs"][0]
    return highdicom.seg.segread(io.BytesIO(base64.b64decode(output["data"])))


@pytest.mark.parametrize("name", SEGMENTATION)
def test_a_published_bundle_runs_whole(name, images, tmp_path):
    model = bundle(name, tmp_path / name)
    assert "this bundle can be served" in run("bundle", "check", model)
    with emulate(images[0]) as ahi, serve(model, ahi.address, MISMATCH_POLICY="warn") as server:
        answer = post(server.address, images[1]["CT"])
    assert answer[0] == 200, answer[2]
    result = json.loads(answer[2])["results"][0]
    print(name, sum(s["voxels"] > 0 for s in result["segments"]), "segments found,", result["timings"])
    assert len(result["segments"]) == SEGMENTATION[name]
    seg = segmentation(answer)
    assert seg.number_of_segments == SEGMENTATION[name]
    assert (seg.Rows, seg.Columns) == (48, 48)


def masks(answer, source):
    """Each segment of an answer as a mask, with the slices in order of position."""
    seg = segmentation(answer)
    heights = sorted(float(pydicom.dcmread(p).ImagePositionPatient[2]) for p in source.rglob("*.dcm"))
    found = np.zeros((seg.number_of_segments, len(heights), seg.Rows, seg.Columns), bool)
    for pixels, frame in zip(np.atleast_3d(seg.pixel_array), seg.PerFrameFunctionalGroupsSequence):
        height = float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[number - 1, np.abs(np.array(heights) - height).argmin()] = pixels > 0
    return found, seg


def without_holes(mask):
    """Fills background that no path of neighbours, corners included, connects to the border."""
    free = ~np.pad(mask, 1)
    reached = np.zeros_like(free)
    reached[0] = True
    size = 0
    while reached.sum() != size:
        size = reached.sum()
        for axis in range(3):
            reached = reached | np.roll(reached, 1, axis) | np.roll(reached, -1, axis)
        reached &= free
    return ~reached[1:-1, 1:-1, 1:-1]


def test_one_hot_channels_are_filled_each_by_itself_from_yaml(images, tmp_path):
    """A class that lies inside another stays, and its voxels belong to both."""
    name = "swin_unetr_btcv_segmentation"
    plain, onehot = bundle(name, tmp_path / "plain"), bundle(name, tmp_path / "onehot")
    # Each class is a range of intensities, from 0 to 1.
    level = np.arange(14) / 13
    bands = network(1, 14, 3, ((2 * level[:, None]).astype(np.float32), (-level**2).astype(np.float32)))
    for model in (plain, onehot):
        onnx.save(bands, model / "models/model.onnx")
    config = json.loads((onehot / "configs/inference.json").read_text())
    steps = config["postprocessing"]["transforms"]
    index = next(i for i, step in enumerate(steps) if step["_target_"] == "AsDiscreted")
    steps[index]["to_onehot"] = 14
    steps.insert(index + 1, {"_target_": "FillHolesd", "keys": "pred"})
    (onehot / "configs/inference.json").unlink()
    (onehot / "configs/inference.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    report = run("bundle", "check", onehot)
    assert "AsDiscreted" in report and "to_onehot: 14" in report and "this bundle can be served" in report
    found = {}
    with emulate(images[0]) as ahi:
        for model in (plain, onehot):
            with serve(model, ahi.address) as server:
                answer = post(server.address, images[1]["CT"])
            assert answer[0] == 200, answer[2]
            found[model.name], seg = masks(answer, images[2]["T1"])
    expected = np.stack([without_holes(mask) for mask in found["plain"]])
    assert (expected.sum(axis=0) > 1).any(), "no class lies in another"
    assert (found["onehot"] == expected).all()
    assert seg.SegmentsOverlap == "YES"


def labels_by_hand(folders):
    """The labels of the brats bundle, in plain NumPy, with the slices in the order of their files."""
    channels = []
    for name in SEQUENCES:
        files = sorted((pydicom.dcmread(p) for p in folders[name].glob("*.dcm")),
                       key=lambda d: float(d.ImagePositionPatient[2]))
        image = np.stack([d.pixel_array for d in files]).astype(np.float64)
        inside = image != 0
        image[inside] = (image[inside] - image[inside].mean()) / image[inside].std()
        channels.append(image)
    kernel, bias = weights(4, 3)
    logits = np.einsum("oc,czyx->ozyx", kernel.astype(np.float64), np.stack(channels)) + bias[:, None, None, None]
    core, whole, enhancing = logits >= 0
    return np.where(enhancing, 4, np.where(core, 1, np.where(whole, 2, 0)))


def test_four_sequences_make_one_segmentation(images, tmp_path):
    store, requests, folders = images
    model = bundle(BRATS, tmp_path / "brats")
    assert "this bundle can be served" in run("bundle", "check", model)
    named = {name: requests[name] for name in SEQUENCES}
    with emulate(store) as ahi, serve(model, ahi.address, MISMATCH_POLICY="warn") as server:
        # Neither order nor case matters.
        shuffled = {"flair": named["FLAIR"], "T2": named["T2"], "t1C": named["T1c"], "T1": named["T1"]}
        answer = post(server.address, {"inputs": [{"images": shuffled}]})
        refused = {
            "missing": post(server.address, {"images": {k: v for k, v in named.items() if k != "T2"}}),
            "unknown": post(server.address, {"images": named | {"PD": named["T1"]}}),
            "single": post(server.address, named["T1"]),
            "no rules": post(server.address, {"images": list(named.values())}),
            "grid": post(server.address, {"images": named | {"T2": requests["other"]}}),
        }
        assert post(server.address, {"images": named})[0] == 200
    assert answer[0] == 200, answer[2]
    expected = labels_by_hand(folders)
    counted = {s["label"]: s["voxels"] for s in json.loads(answer[2])["results"][0]["segments"]}
    assert counted == {
        "Tumor core without Enhancing tumor": (expected == 1).sum(),
        "Whole tumor without Enhancing tumor, Tumor core": (expected == 2).sum(),
        "Enhancing tumor": (expected == 4).sum(),
    }
    assert all(v > 0 for v in counted.values()), counted
    seg = segmentation(answer)
    uids = [str(d.SOPInstanceUID) for d in sorted(
        (pydicom.dcmread(p) for p in folders["T1c"].glob("*.dcm")), key=lambda d: float(d.ImagePositionPatient[2]))]
    stored = seg.get_pixels_by_source_instance(uids, combine_segments=True, relabel=False)
    assert np.array_equal(stored, np.select([expected == 1, expected == 2, expected == 4], [1, 2, 3], 0))
    for what, (status, _, body) in refused.items():
        error = json.loads(body)["error"]
        print(what, status, error["message"])
        assert 400 <= status < 500, (what, body)
    assert "T2" in json.loads(refused["missing"][2])["error"]["message"]
    assert "T1c, T1, T2, FLAIR" in json.loads(refused["single"][2])["error"]["message"]


def test_rules_tell_images_apart(images, tmp_path):
    store, requests, _ = images
    model = bundle(BRATS, tmp_path / "brats")
    rules = [{"name": name, "conditions": {"SeriesDescription": rf"\b{name}\b", "Modality": "CT"}} for name in SEQUENCES]
    (model / "serving.json").write_text(json.dumps({"images": rules}))
    named = {name: requests[name] for name in SEQUENCES}
    with emulate(store) as ahi, serve(model, ahi.address, MISMATCH_POLICY="warn") as server:
        by_name = post(server.address, {"images": named})
        by_rule = post(server.address, {"images": [named[name] for name in ("T2", "FLAIR", "T1", "T1c")]})
        doubled = post(server.address, {"images": [named[name] for name in ("T2", "T2", "T1", "T1c")]})
        unmatched = post(server.address, {"images": [*list(named.values())[:3], requests["CT"]]})
    assert by_rule[0] == by_name[0] == 200, by_rule[2]
    results = [json.loads(answer[2])["results"][0] for answer in (by_rule, by_name)]
    assert results[0]["images"] == results[1]["images"]
    assert results[0]["segments"] == results[1]["segments"]
    for status, _, body in (doubled, unmatched):
        assert status == 400, body
        print(json.loads(body)["error"]["message"])


def test_overlapping_masks_are_segments_of_their_own(images, tmp_path):
    """Without its last step, the brats bundle returns three masks."""
    store, requests, _ = images
    model = bundle(BRATS, tmp_path / "masks")
    path = model / "configs/inference.json"
    config = json.loads(path.read_text())
    steps = config["postprocessing"]["transforms"]
    config["postprocessing"]["transforms"] = [s for s in steps if s["_target_"] != "Lambdad"]
    path.write_text(json.dumps(config))
    named = {name: requests[name] for name in SEQUENCES}
    with emulate(store) as ahi, serve(model, ahi.address, MISMATCH_POLICY="warn") as server:
        answer = post(server.address, {"images": named, "outputs": ["dicom-seg", "nifti"]})
    assert answer[0] == 200, answer[2]
    counted = [s["voxels"] for s in json.loads(answer[2])["results"][0]["segments"]]
    seg = segmentation(answer)
    assert seg.SegmentsOverlap == "YES"
    per_segment = np.zeros(3, int)
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        per_segment[number - 1] += frame.sum()
    assert per_segment.tolist() == counted


@pytest.mark.parametrize("name, reasons", {
    "lung_nodule_ct_detection": ["RetinaNetInferer is not supported", "DetectionEvaluator"],
    "breast_density_classification": ["only segmentations are served"],
    "vista3d": ["Vista3dInferer is not supported", "VistaPostTransformd"],
}.items())
def test_what_is_no_segmentation_is_refused(name, reasons):
    with pytest.raises(AssertionError):
        run("bundle", "check", BUNDLES / name)
    import subprocess
    from local import BINARY, ENVIRONMENT
    done = subprocess.run([BINARY, "bundle", "check", BUNDLES / name], capture_output=True, text=True, env=ENVIRONMENT)
    for reason in reasons:
        assert reason in done.stdout, done.stdout
