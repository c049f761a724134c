"""Whose fault a failure is, which network ran, and the audit line about it."""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import time
import zipfile

import boto3
import highdicom
import onnx
import pydicom
import pytest
from botocore.config import Config

import tiny
from local import emulate, multi_model, serve
from traffic import ask

BUCKET = "images"


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    return tiny.images(tmp_path_factory.mktemp("even"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return tiny.images(tmp_path_factory.mktemp("odd"), slices=13)


@pytest.fixture(scope="module")
def ahi(even, odd, tmp_path_factory):
    """Both image sets in one store."""
    store = tmp_path_factory.mktemp("both") / "store"
    shutil.copytree(even.store, store)
    shutil.copytree(odd.store, store, dirs_exist_ok=True)
    bucket = store / "s3" / BUCKET
    bucket.mkdir(parents=True)
    files = sorted((even.store.parent / "phantom/dicom").rglob("*.dcm"))
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for file in files:
            archive.writestr(file.name, file.read_bytes())
    with emulate(store) as running:
        running.s3 = running.next_address()
        client = boto3.client(
            "s3", endpoint_url=running.s3, region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test", config=Config(s3={"addressing_style": "path"}),
        )
        client.put_object(Bucket=BUCKET, Key="Doe^Jane/ct.zip", Body=memory.getvalue())
        running.e_tag = client.head_object(Bucket=BUCKET, Key="Doe^Jane/ct.zip")["ETag"].strip('"')
        yield running


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def lines_of(server, count):
    """The audit lines, once there are `count` of them."""
    for _ in range(100):
        lines = [json.loads(line) for line in list(server.log) if line.startswith("{")]
        audit = [line for line in lines if line.get("target") == "audit"]
        if len(audit) >= count:
            return audit
        time.sleep(0.05)
    raise AssertionError(f"{len(audit)} lines in place of {count}")


def test_an_image_that_does_not_fit_is_the_senders_fault(even, odd, ahi, tmp_path):
    model = tiny.halving_bundle(tmp_path / "model", 5)
    with serve(model, ahi.address) as server:
        for _ in range(5):
            refused = ask(server.address, "POST", "/invocations", odd.request)
            assert (refused.status, refused.code) == (422, "invalid_image"), refused.body
            assert "32 × 32 × 13" in refused.json()["error"]["message"]
            assert ask(server.address, "GET", "/ping").status == 200
            good = ask(server.address, "POST", "/invocations", even.request)
            assert good.status == 200, good.body
            assert tiny.check(good.json(), even, 5) is None
        assert ask(server.address, "GET", "/info").json()["models"][0]["broken"] is False
    assert not [line for line in server.log if "at fault" in line]


def test_the_network_is_named_by_its_digest(even, ahi, tmp_path):
    model = tiny.bundle(tmp_path / "model", 5)
    expected = sha256(model / "models/model.onnx")
    by_tool = subprocess.run(["sha256sum", model / "models/model.onnx"], capture_output=True, text=True)
    assert by_tool.stdout.split()[0] == expected
    with serve(model, ahi.address) as server:
        assert ask(server.address, "GET", "/info").json()["models"][0]["networkSha256"] == expected
        [result] = ask(server.address, "POST", "/invocations", even.request).json()["results"]
    assert result["networkSha256"] == expected and "networkFiles" not in result
    seg = highdicom.seg.segread(io.BytesIO(base64.b64decode(result["outputs"][0]["data"])))
    identification = seg.get_segment_description(1).algorithm_identification
    assert identification.parameters == {"network SHA-256": expected}
    tool = shutil.which("dciodvfy")
    if tool is not None:
        seg.save_as(tmp_path / "seg.dcm")
        seen = subprocess.run([tool, tmp_path / "seg.dcm"], capture_output=True, text=True)
        assert not [x for x in (seen.stdout + seen.stderr).splitlines() if x.startswith("Error")], seen


def test_weights_in_other_files_count(even, ahi, tmp_path):
    model = tiny.bundle(tmp_path / "model", 5)
    network = onnx.load(model / "models/model.onnx")
    for tensor in network.graph.initializer:
        # ONNX moves only tensors stored as raw bytes to other files.
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(network, model / "models/model.onnx", save_as_external_data=True, location="weights.bin",
              size_threshold=0)
    (model / "models/other.txt").write_text("not of the network")
    lines = "".join(f"{sha256(model / 'models' / name)}  {name}\n" for name in ("model.onnx", "weights.bin"))
    with serve(model, ahi.address) as server:
        [info] = ask(server.address, "GET", "/info").json()["models"]
        assert set(info["networkFiles"]) == {"model.onnx", "weights.bin"}
        assert info["networkSha256"] == hashlib.sha256(lines.encode()).hexdigest()
        good = ask(server.address, "POST", "/invocations", even.request)
    assert good.status == 200 and tiny.check(good.json(), even, 5) is None


def test_every_input_has_its_line_in_the_audit(even, odd, ahi, tmp_path):
    model = tiny.halving_bundle(tmp_path / "model", 5)
    out = tmp_path / "Doe^Jane"
    # At any log level.
    with serve(model, ahi.address, LOG_LEVEL="error", S3_ENDPOINT_URL=ahi.s3, S3_PATH_STYLE="true") as server:
        def send(body):
            return ask(server.address, "POST", "/invocations", body,
                       **{"X-Amzn-SageMaker-Inference-Id": "study-7"})
        good = send(even.request)
        assert good.status == 200
        mixed = send({"inputs": [even.request, odd.request, even.request]})
        # A failing input does not lose the results of the others.
        assert mixed.status == 200
        first, second, third = mixed.json()["results"]
        for result in (first, third):
            assert tiny.check({"results": [result]}, even, 5) is None
        assert second["error"]["code"] == "invalid_image" and not second["outputs"]
        assert second["error"]["details"]["input"] == 1
        assert second["input"] == odd.request
        failed = send({"inputs": [odd.request, odd.request]})
        assert failed.status == 422 and failed.json()["error"]["details"]["input"] == 0
        stored = send({"s3Uri": f"s3://{BUCKET}/Doe^Jane/ct.zip", "outputs": ["dicom-seg", "nifti"],
                       "outputS3Uri": f"s3://{BUCKET}/results/Doe^Jane"})
        assert stored.status == 200, stored.body
        absent = send({"s3Uri": f"s3://{BUCKET}/Doe^Jane/nothing.zip"})
        assert absent.status == 404
        lines = lines_of(server, 8)
    network = sha256(model / "models/model.onnx")
    ids = [good.headers["x-request-id"]] + 3 * [mixed.headers["x-request-id"]] + 2 * [failed.headers["x-request-id"]] + [
        stored.headers["x-request-id"], absent.headers["x-request-id"]]
    assert [line["request_id"] for line in lines] == ids
    assert [line["outcome"] for line in lines] == [
        "ok", "ok", "invalid_image", "ok", "invalid_image", "invalid_image", "ok", "not_found"]
    assert [line["input"] for line in lines] == [0, 0, 1, 2, 0, 1, 0, 0]
    for line in lines:
        assert (line["message"], line["inference_id"], line["model"], line["network_sha256"]) == (
            "audit", "study-7", "model", network)
    [result] = good.json()["results"]
    [output] = result["outputs"]
    assert {key: lines[0][key] for key in (
        "kind", "datastore_id", "image_set_id", "version_id", "series_instance_uid", "output_kind",
        "output_name", "output_bytes", "output_sha256", "output_to")} == {
        "kind": "image_set", "datastore_id": even.request["datastoreId"],
        "image_set_id": even.request["imageSetId"], "version_id": "1",
        "series_instance_uid": result["seriesInstanceUID"], "output_kind": "dicom-seg",
        "output_name": output["fileName"], "output_bytes": str(output["bytes"]),
        "output_sha256": output["sha256"], "output_to": "answer"}
    # The input that failed was read nevertheless; the one that was not run was not.
    assert lines[2]["version_id"] == "1" and "output_kind" not in lines[2]
    assert lines[2]["image_set_id"] == odd.request["imageSetId"]
    assert lines[3]["version_id"] == "1" and lines[3]["output_kind"] == "dicom-seg"
    key = hashlib.sha256(b"Doe^Jane/ct.zip").hexdigest()
    outputs = stored.json()["results"][0]["outputs"]
    assert {key: lines[6][key] for key in (
        "kind", "bucket", "key_sha256", "e_tag", "output_kind", "output_sha256", "output_to", "output_name")} == {
        "kind": "s3", "bucket": BUCKET, "key_sha256": key, "e_tag": ahi.e_tag,
        "output_kind": "dicom-seg,nifti", "output_sha256": ",".join(o["sha256"] for o in outputs),
        "output_to": f"s3://{BUCKET},s3://{BUCKET}", "output_name": ",".join(o["fileName"] for o in outputs)}
    name = str(pydicom.dcmread(next((even.store.parent / "phantom/dicom").rglob("*.dcm"))).PatientName)
    assert name
    for line in server.log:
        assert name not in line and "PHANTOM" not in line
        if '"target":"audit"' in line:
            assert "Doe" not in line


def test_a_model_that_is_not_there_has_a_line_too(even, ahi):
    with multi_model(ahi.address) as server:
        refused = ask(server.address, "POST", "/invocations", even.request | {"model": "none"})
        assert refused.status == 404
        [line] = lines_of(server, 1)
    assert (line["outcome"], line["image_set_id"]) == ("model_not_found", even.request["imageSetId"])


def test_models_are_loaded_only_from_below_the_roots(ahi, tmp_path):
    (tmp_path / "root").mkdir()
    inside, outside = tiny.bundle(tmp_path / "root/in", 1), tiny.bundle(tmp_path / "out", 2)
    (tmp_path / "root/link").symlink_to(outside)
    linked = tiny.bundle(tmp_path / "root/linked", 3)
    (linked / "models/model.onnx").unlink()
    (linked / "models/model.onnx").symlink_to(outside / "models/model.onnx")
    with multi_model(ahi.address, MODEL_ROOTS=f"/srv/models:{tmp_path / 'root'}") as server:
        def load(name, url):
            return ask(server.address, "POST", "/models", {"model_name": name, "url": str(url)})
        messages = set()
        for url in (outside, tmp_path / "root/../out", tmp_path / "root/link", tmp_path / "no/such/folder",
                    "/", "/etc", linked):
            refused = load("m", url)
            assert (refused.status, refused.code) == (403, "access_denied"), url
            messages.add(refused.json()["error"]["message"])
        assert len(messages) == 1 and "MODEL_ROOTS" in messages.pop()
        assert load("m", inside).status == 200
        assert load("m", outside).code == "access_denied"
        assert ask(server.address, "GET", "/models").json()["models"] == [
            {"modelName": "m", "modelUrl": str(inside)}]
    with multi_model(ahi.address, MODEL_ROOTS="/opt/ml") as server:
        refused = ask(server.address, "POST", "/models", {"model_name": "m", "url": str(inside)})
        assert (refused.status, refused.code) == (403, "access_denied")
