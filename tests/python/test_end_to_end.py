"""The whole path with real parts: import, local HealthImaging, server, HTTP. Other tools read the result."""

import base64
import hashlib
import json
import signal
import subprocess
import threading
import zipfile

import highdicom
import numpy as np
import pydicom
import pytest

from local import (
    ROOT, SHARED, copy_store, edit_metadata, emulate, find_files, frames_of, get, import_dicom, post, run, serve,
)

CRANIUM = SHARED / "data/cranium_ct_dicom.zip"
BONE = SHARED / "models/ct_bone_unet"
REFERENCE = SHARED / "reference/cranium_bone.npz"
needs_shared = pytest.mark.skipif(
    not (CRANIUM.exists() and BONE.exists() and REFERENCE.exists()),
    reason=f"the reference material is not in {SHARED} (AHI_SHARED names its folder)",
)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A small phantom imported into a store: its folder, the store, the request body."""
    folder = tmp_path_factory.mktemp("phantom")
    run("phantom", "--out", folder / "phantom", "--size", 96, "--slices", 64)
    request = import_dicom(folder / "phantom/dicom", folder / "store")
    return folder / "phantom", folder / "store", request


@pytest.fixture(scope="module")
def server(phantom):
    with emulate(phantom[1]) as ahi, serve(ROOT / "model/ct_phantom", ahi.address) as running:
        yield running


def error_of(answer):
    status, headers, body = answer
    assert headers["content-type"] == "application/json", body
    error = json.loads(body)["error"]
    assert error["message"] and error["code"]
    return status, error["code"], error


def check_dciodvfy(path):
    checked = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
    lines = (checked.stdout + checked.stderr).splitlines()
    assert not [line for line in lines if line.startswith("Error")], lines


def label_map(seg_file, sources):
    """The label map on the grid of the sources (a list of data sets in slice order), axes X, Y, Z."""
    seg = highdicom.seg.segread(seg_file)
    uids = [source.SOPInstanceUID for source in sources]
    frames = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, relabel=False, assert_missing_frames_are_empty=True
    )
    return np.asarray(frames).transpose(2, 1, 0)


def in_slice_order(files):
    sources = [pydicom.dcmread(f, stop_before_pixels=True) for f in files]
    row, column = np.split(np.array(sources[0].ImageOrientationPatient, float), 2)
    normal = np.cross(row, column)
    return sorted(sources, key=lambda s: np.dot(np.array(s.ImagePositionPatient, float), normal))


@needs_shared
def test_cranium_equals_monai(tmp_path):
    request = import_dicom(CRANIUM, tmp_path / "store")
    with emulate(tmp_path / "store") as ahi, serve(BONE, ahi.address) as server:
        status, headers, body = post(server.address, {"inputs": [request]}, Accept="application/dicom")
    assert status == 200, body
    assert headers["content-type"] == "application/dicom"
    seg_file = tmp_path / "seg.dcm"
    seg_file.write_bytes(body)
    check_dciodvfy(seg_file)
    with zipfile.ZipFile(CRANIUM) as archive:
        archive.extractall(tmp_path / "dicom")
    ours = label_map(seg_file, in_slice_order(sorted((tmp_path / "dicom").rglob("*.dcm"))))
    reference = np.load(REFERENCE)
    shape = tuple(reference["label_shape"])
    theirs = np.unpackbits(reference["label"])[: np.prod(shape)].reshape(shape)
    assert ours.shape == theirs.shape
    equal = (ours == theirs).mean()
    dice = 2 * ((ours == 1) & (theirs == 1)).sum() / ((ours == 1).sum() + (theirs == 1).sum())
    print(f"equal {equal:.6%}, Dice {dice:.6f}")
    assert equal >= 0.9999 and dice >= 0.9995


def test_json_answer_and_seg(phantom, server, tmp_path):
    folder, _, request = phantom
    status, headers, body = post(server.address, request, X_Amzn_SageMaker_Inference_Id="case-7")
    assert status == 200, body
    answer = json.loads(body)
    assert answer["inferenceId"] == "case-7"
    assert answer["requestId"] == headers["x-request-id"]
    [result] = answer["results"]
    assert result["executionProvider"] in ("OpenVINOExecutionProvider", "CPUExecutionProvider")
    assert result["geometry"]["dimensions"] == [96, 96, 64]
    [output] = result["outputs"]
    content = base64.b64decode(output["data"])
    assert len(content) == output["bytes"]
    assert hashlib.sha256(content).hexdigest() == output["sha256"]
    seg_file = tmp_path / "seg.dcm"
    seg_file.write_bytes(content)
    check_dciodvfy(seg_file)
    seg = pydicom.dcmread(seg_file)
    assert seg.SeriesDescription == "AI generated Seg, not for clinical use."
    labels = label_map(seg_file, in_slice_order(sorted((folder / "dicom").iterdir())))
    truth = np.load(folder / "truth.npy")
    for segment in result["segments"]:
        number = segment["number"]
        assert (labels == number).sum() == segment["voxels"]
        dice = 2 * ((labels == number) & (truth == number)).sum() / max(1, (labels == number).sum() + (truth == number).sum())
        print(segment["label"], f"{dice:.4f}")
        assert dice > 0.85, segment


def test_run_gives_the_same_as_the_server(phantom, server, tmp_path):
    folder, _, request = phantom
    report = json.loads(run("run", folder / "dicom", "--model", ROOT / "model/ct_phantom", "--out", tmp_path))
    _, _, body = post(server.address, request)
    served = json.loads(body)["results"][0]
    assert report["segments"] == served["segments"]
    assert [output["kind"] for output in report["outputs"]] == ["dicom-seg"]
    files = find_files(tmp_path, lambda p: p.suffix == ".dcm")
    assert len(files) == 1
    check_dciodvfy(files[0])


def test_outputs_to_a_folder(phantom, tmp_path):
    _, store, request = phantom
    with emulate(store) as ahi, serve(
        ROOT / "model/ct_phantom", ahi.address, OUTPUT_S3_URI=f"file://{tmp_path}/out"
    ) as server:
        status, _, body = post(server.address, request | {"outputs": ["dicom-seg", "nifti"]})
    assert status == 200, body
    outputs = json.loads(body)["results"][0]["outputs"]
    assert [o["kind"] for o in outputs] == ["dicom-seg", "nifti"]
    folder = f"{tmp_path}/out/{json.loads(body)['requestId']}"
    for output in outputs:
        assert "data" not in output
        path = output["uri"].removeprefix("file://")
        assert path == f"{folder}/{output['fileName']}"
        assert hashlib.sha256(open(path, "rb").read()).hexdigest() == output["sha256"]


UNKNOWN = "0123456789abcdef0123456789abcdef"


def test_requests_that_cannot_be_understood(phantom, server):
    _, _, request = phantom
    for body, what in [(b"not json", "JSON"), (b"[]", "object"), ({}, "datastoreId"), ({"inputs": []}, "inputs"),
                       (request | {"colour": 1}, "colour"), ({"inputs": [{"datastoreId": "x"}]}, "inputs[0]")]:
        status, code, error = error_of(post(server.address, body))
        assert (status, code) == (400, "invalid_request"), error
        assert what in error["message"], error
    for accept in ("text/html", "image/png"):
        assert error_of(post(server.address, request, Accept=accept))[:2] == (406, "not_acceptable")
    assert error_of(post(server.address, b"x", Content_Type="text/plain"))[:2] == (415, "unsupported_media_type")
    assert error_of(post(server.address, b" " * (26 << 20)))[:2] == (413, "payload_too_large")
    assert error_of(get(f"{server.address}/nothing"))[0] == 404
    assert error_of(get(f"{server.address}/invocations"))[0] == 405
    assert get(f"{server.address}/ping")[0] == 200


def test_what_is_not_there(phantom, server):
    _, _, request = phantom
    for changed in ({"imageSetId": UNKNOWN}, {"datastoreId": UNKNOWN}):
        status, code, error = error_of(post(server.address, request | changed))
        assert (status, code) == (404, "not_found")
        assert UNKNOWN in error["message"], error
    status, code, error = error_of(post(server.address, request | {"model": "liver"}))
    assert (status, code) == (404, "model_not_found")
    assert "ct_phantom" in error["message"]
    assert error_of(post(server.address, request, X_Amzn_SageMaker_Target_Model="liver.tar.gz"))[0] == 404


def truncate_frame(store, request):
    frames = find_files(store, lambda p: request["imageSetId"] in str(p) and p.read_bytes()[:2] == b"\xff\x4f")
    frames[len(frames) // 2].write_bytes(frames[len(frames) // 2].read_bytes()[:-200])


def wrong_checksum(document):
    _, _, frame = next(frames_of(document))
    for level in frame["PixelDataChecksumFromBaseToFullResolution"]:
        level["Checksum"] = (level["Checksum"] + 1) % 2**32


def other_dimensions(document):
    _, instance, frame = next(frames_of(document))
    for level in frame["PixelDataChecksumFromBaseToFullResolution"]:
        level["Width"], level["Height"] = level["Width"] * 2, level["Height"] * 2


def other_rows(document):
    for _, instance, _ in frames_of(document):
        instance["DICOM"]["Rows"] = instance["DICOM"]["Rows"] * 2


def missing_slice(document):
    for series in document["Study"]["Series"].values():
        uids = sorted(series["Instances"], key=lambda u: float(series["Instances"][u]["DICOM"]["ImagePositionPatient"][2]))
        del series["Instances"][uids[len(uids) // 2]]


def no_position(document):
    _, instance, _ = next(frames_of(document))
    instance["DICOM"]["ImagePositionPatient"] = None


@pytest.mark.parametrize(
    "change, code, says",
    [
        (truncate_frame, "corrupt_frame", "frame"),
        (wrong_checksum, "corrupt_frame", "checksum"),
        (other_dimensions, "corrupt_frame", "instance"),
        (other_rows, "corrupt_frame", "instance"),
        (missing_slice, "invalid_image", "missing"),
        (no_position, "invalid_image", "ImagePositionPatient"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_images_that_are_not_right(phantom, tmp_path, change, code, says):
    _, store, request = phantom
    broken = copy_store(store, tmp_path / "store")
    if change is truncate_frame:
        change(broken, request)
    else:
        edit_metadata(broken, request, change)
    with emulate(broken) as ahi, serve(ROOT / "model/ct_phantom", ahi.address) as server:
        status, found, error = error_of(post(server.address, request))
        assert (status, found) == (422, code), error
        assert says in error["message"], error
        assert error["details"]["sopInstanceUID"].startswith("2.25.") or error["details"]["sopInstanceUID"]
        assert get(f"{server.address}/ping")[0] == 200
        log = "".join(server.log)
    assert "PHANTOM" not in log and "PHANTOM" not in json.dumps(error)


def test_throttled_healthimaging_is_retried(phantom):
    _, store, request = phantom
    with emulate(store, EMULATE_FRAMES_PER_SECOND="40") as ahi, serve(ROOT / "model/ct_phantom", ahi.address) as server:
        status, _, body = post(server.address, request)
        assert status == 200, body


def test_broken_network_harms_no_other(phantom, tmp_path):
    import shutil

    _, store, request = phantom
    models = tmp_path / "models"
    shutil.copytree(ROOT / "model/ct_phantom", models / "good")
    shutil.copytree(ROOT / "model/ct_phantom", models / "broken")
    (models / "broken/models/model.onnx").write_bytes(b"this is no network")
    with emulate(store) as ahi, serve(models, ahi.address) as server:
        status, code, error = error_of(post(server.address, request | {"model": "broken"}))
        assert (status, code) == (422, "invalid_model")
        assert "model.onnx" in error["message"]
        status, code, error = error_of(post(server.address, request))
        assert (status, code) == (400, "invalid_request") and "good" in error["message"]
        assert post(server.address, request | {"model": "good"})[0] == 200


def test_sigterm_finishes_what_runs(phantom):
    _, store, request = phantom
    with emulate(store) as ahi:
        server = serve(ROOT / "model/ct_phantom", ahi.address)
        answers = []
        worker = threading.Thread(target=lambda: answers.append(post(server.address, request)))
        worker.start()
        threading.Event().wait(0.3)
        server.process.send_signal(signal.SIGTERM)
        worker.join(40)
        assert server.process.wait(30) == 0
        assert answers[0][0] == 200, answers
