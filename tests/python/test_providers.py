"""Execution providers on a machine without a GPU: what is asked for by name is not silently something else."""

import json
import time
from pathlib import Path

import pytest

from local import ROOT, Program, get, serve

MODEL = ROOT / "model/ct_phantom"
GPU = any(Path("/dev").glob("nvidia[0-9]*"))


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
    with Program("serve", "--model", MODEL, "--port", 0, "--host", "127.0.0.1", EXECUTION_PROVIDERS=asked) as server:
        for _ in range(100):
            failures = [line for line in server.log if "cannot be served" in line]
            if failures:
                break
            time.sleep(0.1)
        assert get(f"{server.address}/ping")[0] == 503
    assert failures, server.log
    for part in (provider, "EXECUTION_PROVIDERS", "/dev/nvidia0"):
        assert part in failures[0]


def test_a_device_that_is_no_number_is_refused():
    arguments = ["serve", "--model", MODEL, "--port", 0]
    with pytest.raises(RuntimeError, match="gpu-devices"):
        Program(*arguments, GPU_DEVICES="first")
