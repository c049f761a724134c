"""Execution providers on a machine without a GPU: what is asked for by name is not silently something else."""

import json
import platform
import subprocess
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from local import BINARY, ENVIRONMENT, ROOT, Program, get, serve

MODEL = ROOT / "model/ct_phantom"
GPU = any(Path("/dev").glob("nvidia[0-9]*"))


def failure_to_load(provider):
    """What a server logs that cannot load its model on a provider, and that it is not healthy."""
    with Program("serve", "--model", MODEL, "--port", 0, "--host", "127.0.0.1", EXECUTION_PROVIDERS=provider) as server:
        for _ in range(100):
            failures = [line for line in server.log if "cannot be served" in line]
            if failures:
                break
            time.sleep(0.1)
        assert get(f"{server.address}/ping")[0] == 503
    assert failures, server.log
    return failures[0]


@pytest.mark.skipif(GPU, reason="there is a GPU here")
def test_auto_runs_on_the_cpu_and_says_why():
    with serve(MODEL, "http://127.0.0.1:9") as server:
        [model] = json.loads(get(f"{server.address}/info")[2])["models"]
    assert model["executionProvider"] == "CPUExecutionProvider"
    assert "/dev/nvidia0" in model["executionProviderReason"]
    # Every node of the graph is told of.
    assert list(model["nodes"]) == ["CPUExecutionProvider"] and model["nodes"]["CPUExecutionProvider"] > 10


@pytest.mark.skipif(GPU, reason="there is a GPU here")
@pytest.mark.parametrize("asked,provider", [("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")])
def test_a_gpu_that_is_asked_for_and_missing_fails_loudly(asked, provider):
    failure = failure_to_load(asked)
    for part in (provider, "EXECUTION_PROVIDERS", "/dev/nvidia0"):
        assert part in failure


OPENVINO = {"EXECUTION_PROVIDERS": "openvino"}


def test_openvino_that_is_asked_for_and_missing_fails_loudly():
    failure = failure_to_load("openvino")
    for part in ("libonnxruntime_providers_openvino.so", "get-onnxruntime.sh --openvino"):
        assert part in failure


@pytest.mark.skipif(platform.machine() != "x86_64", reason="OpenVINO's build is for x86-64")
def test_openvino_finds_the_same(tmp_path):
    done = subprocess.run([ROOT / "scripts/get-onnxruntime.sh", "--openvino"], check=True, capture_output=True, text=True)
    library = {"ORT_DYLIB_PATH": done.stdout.strip()}
    with serve(MODEL, "http://127.0.0.1:9", **OPENVINO, **library) as server:
        [model] = json.loads(get(f"{server.address}/info")[2])["models"]
    assert model["executionProvider"] == "OpenVINOExecutionProvider"
    assert model["nodes"] == {"OpenVINOExecutionProvider": sum(model["nodes"].values())}
    run = lambda *arguments, **environment: subprocess.run(
        [BINARY, *map(str, arguments)], check=True, capture_output=True, env=ENVIRONMENT | environment)
    run("phantom", "--out", tmp_path / "phantom")
    labels = []
    for name, environment in (("cpu", {"EXECUTION_PROVIDERS": "cpu"}), ("openvino", OPENVINO | library)):
        folder = tmp_path / name
        run("run", tmp_path / "phantom/dicom", "--model", MODEL, "--out", folder, "--output", "nifti", **environment)
        [file] = folder.rglob("*.nii.gz")
        labels.append(np.asarray(nibabel.load(file).dataobj))
    assert len(np.unique(labels[0])) == 5
    assert (labels[0] != labels[1]).mean() <= 1e-4


def test_a_device_that_is_no_number_is_refused():
    arguments = ["serve", "--model", MODEL, "--port", 0]
    with pytest.raises(RuntimeError, match="gpu-devices"):
        Program(*arguments, GPU_DEVICES="first")
