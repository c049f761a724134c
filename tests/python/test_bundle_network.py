"""`bundle check` opens the network. One that does not fit its configuration is refused there and on loading."""

import json
import subprocess

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tiny
from local import BINARY, ENVIRONMENT, run


def conv(folder, dims=("n", 1, 16, 16, 16), classes=2, kind=TensorProto.FLOAT):
    """A bundle whose network is one convolution, for an input of the given size."""
    tiny.bundle(folder, 1)
    rank = len(dims) - 2
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = [numpy_helper.from_array(np.ones((classes, dims[1], *[1] * rank), dtype), "w")]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["pred"])], "conv",
        [helper.make_tensor_value_info("image", kind, dims)],
        [helper.make_tensor_value_info("pred", kind, [dims[0], classes, *dims[2:]])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "models/model.onnx")
    return folder


def check(folder):
    done = subprocess.run([BINARY, "bundle", "check", folder, "--json"], capture_output=True, text=True, env=ENVIRONMENT)
    report = json.loads(done.stdout)
    assert (done.returncode == 0) == report["runs"]
    return report


def loaded(folder, tmp_path):
    """What `run` prints when it loads the model; there are no images."""
    (tmp_path / "none").mkdir(exist_ok=True)
    done = subprocess.run([BINARY, "run", tmp_path / "none", "--model", folder, "--out", tmp_path / "out"],
                          capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode != 0
    return done.stderr


def test_a_network_that_fits_is_described(tmp_path):
    folder = conv(tmp_path / "fits")
    report = check(folder)
    assert report["runs"], report
    network = report["network"]
    assert (network["input"], network["outputChannels"]) == ([None, 1, 16, 16, 16], 2)
    assert len(network["sha256"]) == 64
    text = run("bundle", "check", folder)
    assert "any × 1 × 16 × 16 × 16 (N, C, X, Y, Z), float32" in text


@pytest.mark.parametrize("what, dims, classes, kind, says", [
    ("window", ("n", 1, 32, 16, 16), 2, TensorProto.FLOAT,
     ["takes windows of 32 × 16 × 16", "gives it 16 × 16 × 16", "export it again"]),
    ("input channels", ("n", 4, 16, 16, 16), 2, TensorProto.FLOAT, ["takes 4 channels", "describes 1", "export it again"]),
    ("output channels", ("n", 1, 16, 16, 16), 3, TensorProto.FLOAT, ["gives 3 channels", "describes 2", "export it again"]),
    ("slices", ("n", 1, 16, 16), 2, TensorProto.FLOAT, ["takes slices", "gives it volumes", "export it again"]),
    ("half precision", ("n", 1, 16, 16, 16), 2, TensorProto.FLOAT16, ["f16", "float32 is wanted", "export it again"]),
])
def test_a_network_that_does_not_fit_is_refused(what, dims, classes, kind, says, tmp_path):
    folder = conv(tmp_path / "bundle", dims, classes, kind)
    problems = [p["message"] for p in check(folder)["problems"] if p["file"] == "models/model.onnx"]
    error = loaded(folder, tmp_path)
    print(problems, error)
    for part in says:
        assert any(part in problem for problem in problems), problems
        assert part in error, error


def test_a_file_that_is_cut_short_is_a_problem(tmp_path):
    folder = conv(tmp_path / "bundle")
    path = folder / "models/model.onnx"
    path.write_bytes(path.read_bytes()[:-40])
    report = check(folder)
    [problem] = report["problems"]
    assert problem["file"] == "models/model.onnx" and "cannot load it" in problem["message"], problem


def test_a_batch_of_its_own_is_a_warning(tmp_path):
    report = check(conv(tmp_path / "bundle", (2, 1, 16, 16, 16)))
    assert report["runs"] and any("2 windows at a time" in warning for warning in report["warnings"])


def test_norms_in_one_pass_are_rewritten_or_told_of(tmp_path):
    def norm(name, opset):
        folder = tiny.bundle(tmp_path / name, 1)
        value = lambda name, channels: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, 16, 16, 16])
        tensors = [numpy_helper.from_array(np.ones((2, 1, 1, 1, 1), np.float32), "w"),
                   numpy_helper.from_array(np.array([1, 2], np.float32), "s"),
                   numpy_helper.from_array(np.zeros(2, np.float32), "b")]
        nodes = [helper.make_node("Conv", ["image", "w"], ["c"]),
                 helper.make_node("InstanceNormalization", ["c", "s", "b"], ["pred"], name="the norm")]
        graph = helper.make_graph(nodes, "norm", [value("image", 1)], [value("pred", 2)], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
        return folder, model

    folder, model = norm("new", 17)
    onnx.save(model, folder / "models/model.onnx")
    assert check(folder)["network"]["normsInTwoStages"] == 1
    # Weights in a separate file.
    onnx.save(model, folder / "models/model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    report = check(folder)
    assert report["runs"] and report["network"]["normsInTwoStages"] == 1, report
    folder, model = norm("old", 11)
    onnx.save(model, folder / "models/model.onnx")
    report = check(folder)
    assert report["network"]["normsInTwoStages"] == 0
    assert any("(the norm)" in warning and "export the network again" in warning for warning in report["warnings"])
