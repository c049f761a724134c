"""model/export_monai_bundle.py on small bundles in their published form, and the norms it writes.

Needs PyTorch and MONAI, in this Python or in target/compare-venv (scripts/setup-compare.sh), except for the norms.
"""

import importlib.util
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from local import ROOT

SCRIPT = ROOT / "model/export_monai_bundle.py"
sys.path.insert(0, str(ROOT / "model"))
from monai_export import accurate_norms  # noqa: E402


def python_with_torch():
    if all(importlib.util.find_spec(name) for name in ("torch", "monai", "onnxruntime")):
        return sys.executable
    other = ROOT / "target/compare-venv/bin/python"
    return str(other) if other.is_file() else None


PYTHON = python_with_torch()
needs_torch = pytest.mark.skipif(
    PYTHON is None, reason="PyTorch and MONAI are not installed (scripts/setup-compare.sh does it)")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    subprocess.run([PYTHON, "-W", "ignore", Path(__file__).with_name("export_cases.py"), folder], check=True)
    return folder


def export(bundle, *arguments):
    """The report, or the script's message if it fails; in that case it leaves nothing new in the bundle."""
    before = sorted(map(str, bundle.rglob("*")))
    done = subprocess.run([PYTHON, SCRIPT, bundle, "--inputs", "2", *map(str, arguments)], capture_output=True, text=True)
    print(done.stderr)
    if done.returncode == 0:
        assert not [p for p in bundle.rglob("*") if p.name.startswith(".")]
        return json.loads(done.stdout)
    assert sorted(p for p in map(str, bundle.rglob("*")) if "__pycache__" not in p) == before
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return error


def biases(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.name.endswith("bias")}


@needs_torch
def test_a_network_of_the_bundles_own_is_found(bundles):
    report = export(bundles / "own")
    assert report["source"] == "models/model.pt"
    assert (report["input"], report["output"]) == ([1, 32, 32, 32], [2, 32, 32, 32])
    assert report["normsInTwoStages"] == 1
    assert report["parity"]["reference"] == "f64"
    assert any("not_installed_anywhere" in note for note in report["notes"])
    model = onnx.load(bundles / "own/models/model.onnx")
    assert [o.name for o in model.graph.output] == ["pred"]


@needs_torch
def test_arguments_that_monai_dropped_are_told_of(bundles):
    report = export(bundles / "old")
    assert any("network_def#img_size" in note and "left out" in note for note in report["notes"]), report["notes"]
    parity = report["parity"]
    assert parity["onnxRuntime"]["largestError"] < 10 * parity["pytorch"]["largestError"]
    error = export(bundles / "unknown")
    assert "network_def#colour" in error and "in_channels" in error


@needs_torch
def test_the_checkpoint_is_the_one_that_the_configuration_loads(bundles, tmp_path):
    low = bundles / "low"
    assert export(low)["source"] == "models/model.pt"
    high = biases(low / "models/model.onnx")
    archive = tmp_path / "not/there/model.tar.gz"
    report = export(low, "--set", "shown#highres=false", "--pack", archive)
    assert report["source"] == "models/model_lowres.pt"
    with tarfile.open(archive) as tar:
        assert sorted(tar.getnames()) == ["configs/inference.json", "configs/metadata.json", "models/model.onnx"]
        tar.extractall(tmp_path / "packed", filter="data")
    packed = json.loads((tmp_path / "packed/configs/inference.json").read_text())
    assert packed["shown"] == {"highres": False}
    lower = biases(tmp_path / "packed/models/model.onnx")
    assert lower.keys() == high.keys()
    for name, bias in biases(low / "models/model.onnx").items():
        assert np.allclose(bias, high[name]), "the bundle's own network is another"
        assert np.allclose(lower[name], bias + 1, atol=1e-6), name
    # The same setting, edited in the bundle itself.
    config = low / "configs/inference.json"
    config.write_text(config.read_text().replace("true", "false"))
    assert export(low)["source"] == "models/model_lowres.pt"
    assert "has no such entry" in export(low, "--set", "shown#lowres=1", "--pack", archive)
    # model.ts belongs to model.pt and to no other checkpoint.
    error = export(bundles / "missing")
    assert "other.pt is not there" in error and "checkpointloader#load_path" in error
    assert export(bundles / "missing", "--weights", bundles / "missing/models/model.ts")["source"] == "models/model.ts"


@needs_torch
def test_wrapped_weights_a_scalar_window_and_no_metadata(bundles):
    report = export(bundles / "parallel")
    assert report["input"] == [1, 32, 32, 32]
    assert any("metadata.json is missing" in note for note in report["notes"])
    assert "--window 96 96 96" in export(bundles / "size")
    assert export(bundles / "size", "--window", 16, 16, 32)["input"] == [1, 16, 16, 32]


@needs_torch
def test_torchscript_that_computes_on_its_input_first(bundles):
    report = export(bundles / "script")
    assert (report["source"], report["output"]) == ("models/model.ts", [2, 32, 32, 32])
    # It subtracts the mean of a whole batch.
    assert report["parity"]["batch"]["mixesWindows"]
    assert any("mixes the windows" in note for note in report["notes"])


@needs_torch
def test_what_fails_says_why_and_leaves_nothing(bundles):
    assert "no numbers" in export(bundles / "broken")
    assert "cannot be loaded" in export(bundles / "cut")
    assert "is no checkpoint of this network" in export(bundles / "other")
    assert "is no folder" in export(bundles / "nowhere")


# Norms, which need no PyTorch.

CASES = {
    "instances": ("InstanceNormalization", 17, {}, 4, (40, 36, 30)),
    "instances, axes as inputs": ("InstanceNormalization", 21, {}, 4, (40, 36, 30)),
    "groups scaled by channel": ("GroupNormalization", 21, {"num_groups": 2}, 4, (40, 36, 30)),
    "groups scaled by group": ("GroupNormalization", 18, {"num_groups": 2}, 2, (40, 36, 30)),
    "a prime number of values": ("InstanceNormalization", 17, {}, 4, (5003,)),
}


def norm_model(operator, opset, attributes, scales, dims, neutral=False):
    scale = np.ones(scales, np.float32) if neutral else np.linspace(-1, 2, scales).astype(np.float32)
    bias = np.zeros(scales, np.float32) if neutral else np.linspace(3, -1, scales).astype(np.float32)
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4, *dims])
    graph = helper.make_graph(
        [helper.make_node(operator, ["image", "scale", "bias"], ["pred"], epsilon=1e-3, **attributes)], "norm",
        [value("image")], [value("pred")], [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(bias, "bias")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def expected(image, groups, scale, bias):
    flat = image.astype(np.float64).reshape(image.shape[0], groups, -1)
    flat = (flat - flat.mean(-1, keepdims=True)) / np.sqrt(flat.var(-1, keepdims=True) + 1e-3)
    shape = (-1,) + (1,) * (image.ndim - 2)
    each = lambda v: np.repeat(v, image.shape[1] // len(v)).reshape(shape)
    return flat.reshape(image.shape) * each(scale) + each(bias)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("neutral", [False, True])
def test_norms_in_two_stages_give_what_they_gave(name, neutral):
    operator, opset, attributes, scales, dims = CASES[name]
    model = norm_model(operator, opset, attributes, scales, dims, neutral)
    scale, bias = (numpy_helper.to_array(t) for t in model.graph.initializer)
    assert accurate_norms.rewrite(model) == (1, [])
    onnx.checker.check_model(model, full_check=True)
    assert operator not in {node.op_type for node in model.graph.node}
    image = np.random.default_rng(1).random((2, 4, *dims), dtype=np.float32) + 2
    [found] = ReferenceEvaluator(model).run(None, {"image": image})
    groups = attributes.get("num_groups", 4)
    assert np.abs(found - expected(image, groups, scale, bias)).max() < 1e-5


def test_norms_over_few_values_and_of_unknown_size_stay():
    small = norm_model("InstanceNormalization", 17, {}, 4, (8, 8, 8))
    assert accurate_norms.rewrite(small) == (0, [])
    free = norm_model("InstanceNormalization", 17, {}, 4, ("x", "y", "z"))
    assert accurate_norms.rewrite(free) == (0, ["pred"])
