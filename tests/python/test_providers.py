"""Execution providers on a machine without a GPU: one requested by name is never silently replaced by another."""

import json
import platform
import shutil
import subprocess
import time
from pathlib import Path

import nibabel
import numpy as np
import onnx
import pytest

from local import BINARY, ENVIRONMENT, ROOT, Program, get, serve

MODEL = ROOT / "model/ct_phantom"
GPU = any(Path("/dev").glob("nvidia[0-9]*"))


def failure_to_load(provider, **environment):
    """What a server logs if it cannot load its model on a provider; also checks that it is not healthy."""
    environment |= {"EXECUTION_PROVIDERS": provider}
    with Program("serve", "--model", MODEL, "--port", 0, "--host", "127.0.0.1", **environment) as server:
        for _ in range(100):
            failures = [line for line in server.log if "cannot be served" in line]
            if failures:
                break
            time.sleep(0.1)
        assert get(f"{server.address}/ping")[0] == 503
    assert failures, server.log
    return failures[0]


X86 = platform.machine() == "x86_64"
DEFAULT = "OpenVINOExecutionProvider" if X86 else "CPUExecutionProvider"


def model_of(server):
    [model] = json.loads(get(f"{server.address}/info")[2])["models"]
    return model


@pytest.fixture(scope="module")
def slim(tmp_path_factory):
    """ONNX Runtime without OpenVINO."""
    folder = tmp_path_factory.mktemp("slim")
    done = subprocess.run(
        [ROOT / "scripts/get-onnxruntime.sh", "--slim", folder], check=True, capture_output=True, text=True)
    return {"ORT_DYLIB_PATH": done.stdout.strip()}


@pytest.mark.skipif(GPU, reason="there is a GPU here")
def test_auto_takes_the_fastest_of_a_cpu_and_says_why(slim):
    for provider, environment in ((DEFAULT, {}), ("CPUExecutionProvider", slim)):
        with serve(MODEL, "http://127.0.0.1:9", **environment) as server:
            model = model_of(server)
        assert model["executionProvider"] == provider
        assert "/dev/nvidia0" in model["executionProviderReason"]
        # Every node of the graph is listed.
        assert list(model["nodes"]) == [provider] and model["nodes"][provider] > 10
        assert model["cpuPrecision"] == "f32" and model["windowsSideBySide"] >= 1 and model["windowsPerRun"] >= 1
        assert model["bytes"] > 8 << 20
    assert "libonnxruntime_providers_openvino.so" in model["executionProviderReason"]


def test_the_cpu_s_own_kernels_are_there_on_request():
    with serve(MODEL, "http://127.0.0.1:9", EXECUTION_PROVIDERS="cpu") as server:
        model = model_of(server)
    assert model["executionProvider"] == "CPUExecutionProvider" and "executionProviderReason" not in model


def test_the_pool_has_as_many_threads_as_it_is_told_and_gives_way_to_the_network():
    with serve(MODEL, "http://127.0.0.1:9", CPU_THREADS="3") as server:
        found = []
        for task in Path(f"/proc/{server.process.pid}/task").iterdir():
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
            found.append((name, int(rest.split()[16])))
        nice = dict(found)
    assert sorted(name for name, _ in found if name.startswith("cpu-")) == ["cpu-0", "cpu-1", "cpu-2"], found
    assert nice["cpu-0"] - nice["work"] == 5, found


def test_what_was_found_out_is_kept_and_used_again(tmp_path):
    said = []
    for _ in range(2):
        with serve(MODEL, "http://127.0.0.1:9", MODEL_CACHE_DIR=tmp_path, RUST_LOG="info") as server:
            said.append(model_of(server))
            log = "\n".join(server.log)
    assert said[0] == said[1]
    [file] = tmp_path.iterdir()
    found = json.loads(file.read_text())
    assert found["bytes"] == said[0]["bytes"] and found["plan"]["lanes"] == said[0]["windowsSideBySide"]
    assert "network loaded" in log and "the fastest plan" not in log, log
    file.write_text('{"plan": {"lanes": 4096, "batch": 1000000}, "bytes": 7}')
    with serve(MODEL, "http://127.0.0.1:9", MODEL_CACHE_DIR=tmp_path) as server:
        assert model_of(server)["windowsPerRun"] <= 4, "what does not fit is ignored"


def fast_bf16():
    flags = Path("/proc/cpuinfo").read_text()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def test_a_precision_that_the_cpu_is_not_fast_in_is_refused():
    if fast_bf16() and X86:
        pytest.skip("this CPU has instructions for bfloat16")
    failure = failure_to_load("auto", CPU_PRECISION="bf16")
    for part in ("bf16", "CPU_PRECISION", "ask for f32"):
        assert part in failure


@pytest.mark.skipif(not (fast_bf16() and X86), reason="this CPU has no instructions for bfloat16")
def test_a_lower_precision_makes_a_difference_and_a_small_one():
    with serve(MODEL, "http://127.0.0.1:9", CPU_PRECISION="bf16") as server:
        assert model_of(server)["cpuPrecision"] == "bf16"


def test_a_precision_needs_openvino(slim):
    assert "only OpenVINO computes in it" in failure_to_load("auto", CPU_PRECISION="bf16", **slim)


@pytest.mark.skipif(GPU, reason="there is a GPU here")
@pytest.mark.parametrize("asked,provider", [("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")])
def test_a_gpu_that_is_asked_for_and_missing_fails_loudly(asked, provider):
    failure = failure_to_load(asked)
    for part in (provider, "EXECUTION_PROVIDERS", "/dev/nvidia0"):
        assert part in failure


def test_openvino_that_is_asked_for_and_missing_fails_loudly(slim):
    failure = failure_to_load("openvino", **slim)
    for part in ("libonnxruntime_providers_openvino.so", "get-onnxruntime.sh without --slim"):
        assert part in failure


@pytest.mark.skipif(not X86, reason="OpenVINO's build is for x86-64")
def test_openvino_finds_the_same(tmp_path):
    run = lambda *arguments, **environment: subprocess.run(
        [BINARY, *map(str, arguments)], check=True, capture_output=True, env=ENVIRONMENT | environment)
    run("phantom", "--out", tmp_path / "phantom")
    labels = []
    for name in ("cpu", "openvino"):
        folder = tmp_path / name
        run("run", tmp_path / "phantom/dicom", "--model", MODEL, "--out", folder, "--output", "nifti",
            EXECUTION_PROVIDERS=name)
        [file] = folder.rglob("*.nii.gz")
        labels.append(np.asarray(nibabel.load(file).dataobj))
    assert len(np.unique(labels[0])) == 5
    assert (labels[0] != labels[1]).mean() <= 1e-4


def test_a_device_that_is_no_number_is_refused():
    arguments = ["serve", "--model", MODEL, "--port", 0]
    with pytest.raises(RuntimeError, match="gpu-devices"):
        Program(*arguments, GPU_DEVICES="first")


def test_another_file_of_the_network_is_compared_with_the_first(tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(MODEL, bundle, ignore=shutil.ignore_patterns(".cache"))
    network = onnx.load(bundle / "models/model.onnx")
    for tensor in network.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 1000:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))
    onnx.save(network, bundle / "models/rounded.onnx")
    run = lambda *arguments: subprocess.run([BINARY, *map(str, arguments)], capture_output=True, env=ENVIRONMENT, text=True, timeout=120)
    assert run("phantom", "--out", tmp_path / "phantom").returncode == 0
    compare = lambda *more: run("bundle", "compare", bundle, tmp_path / "phantom/dicom", *more)
    report = json.loads(compare("--network", "rounded.onnx").stdout)
    assert 0 < report["largestDifference"] < 1 and 0.999 < report["labelsEqual"] <= 1
    assert report["reference"]["networkSha256"] != report["candidate"]["networkSha256"]
    assert [segment["dice"] > 0.99 for segment in report["segments"]] == [True] * 4
    same = json.loads(compare("--network", "model.onnx").stdout)
    assert same["labelsEqual"] == 1 and same["largestDifference"] == 0
    text = compare("--network", "rounded.onnx", "--table").stdout
    assert "labels equal" in text and text.count("Dice") == 4
    for arguments, part in (((), "nothing to compare"), (("--network", "../model.onnx"), "in models/"),
                            (("--network", "absent.onnx"), "does not exist")):
        failed = compare(*arguments)
        assert failed.returncode != 0 and part in failed.stderr, failed.stderr
    # Memory for both runs, or a refusal: it never waits for memory that only this comparison holds.
    for megabytes in (2, 8, 16, 32, 64, 128):
        done = compare("--network", "model.onnx", "--work-memory", megabytes << 20)
        assert done.returncode == 0 or "payload_too_large" in done.stderr, done.stderr
    # serving.json selects it for serving.
    (bundle / "serving.json").write_text(json.dumps({"execution": {"cpuModel": "rounded.onnx"}}))
    with serve(bundle, "http://127.0.0.1:9") as server:
        assert model_of(server)["networkSha256"] == report["candidate"]["networkSha256"]
