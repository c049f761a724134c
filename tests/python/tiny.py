"""Tiny models whose answers are known in advance, and images for them.

Model number N labels every voxel above its own threshold, in a segment called "model N". An answer thus shows
which model gave it, and a simple comparison with the pixels shows whether it is right.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pydicom
from onnx import TensorProto, helper

from local import import_dicom, run

INFERENCE = {
    "device": "$torch.device('cpu')",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "EnsureTyped", "keys": "image"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "sw_batch_size": 4, "overlap": 0.0},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}],
    },
}


def threshold(number):
    """Between two possible pixel values, so that no voxel is exactly on it."""
    return -90.5 + 4.0 * number


def network(number):
    """One convolution that gives (0, x - threshold)."""
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [2, 1, 1, 1, 1], [0.0, 1.0]),
        helper.make_tensor("b", TensorProto.FLOAT, [2], [0.0, -threshold(number)]),
    ]
    value = lambda name, channels: helper.make_tensor_value_info(
        name, TensorProto.FLOAT, ["n", channels, "x", "y", "z"]
    )
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w", "b"], ["pred"])],
        f"tiny{number}", [value("image", 1)], [value("pred", 2)], weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def bundle(folder, number):
    """A MONAI bundle of model `number`; returns its folder."""
    folder = Path(folder)
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    image = {"type": "image", "num_channels": 1, "spatial_shape": [16, 16, 16], "dtype": "float32",
             "channel_def": {"0": "image"}}
    pred = {"type": "image", "format": "segmentation", "num_channels": 2, "spatial_shape": [16, 16, 16],
            "dtype": "float32", "channel_def": {"0": "background", "1": f"model {number}"}}
    metadata = {"version": "1", "name": f"tiny {number}", "task": "Thresholding",
                "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}}}
    (folder / "configs/inference.json").write_text(json.dumps(INFERENCE))
    (folder / "configs/metadata.json").write_text(json.dumps(metadata))
    onnx.save(network(number), folder / "models/model.onnx")
    return folder


def bands_bundle(folder, numbers):
    """A bundle whose classes are the ranges between the thresholds of models `numbers`, ascending.

    The output for class i is the sum of x - threshold over the first i of them, which is largest if x is above all
    of those and none of the rest.
    """
    folder = bundle(folder, numbers[0])
    count = len(numbers) + 1
    bias = [-sum(threshold(n) for n in numbers[:i]) for i in range(count)]
    model = network(numbers[0])
    del model.graph.initializer[:]
    model.graph.initializer.extend([
        helper.make_tensor("w", TensorProto.FLOAT, [count, 1, 1, 1, 1], [float(i) for i in range(count)]),
        helper.make_tensor("b", TensorProto.FLOAT, [count], bias),
    ])
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = count
    onnx.checker.check_model(model)
    onnx.save(model, folder / "models/model.onnx")
    path = folder / "configs/metadata.json"
    metadata = json.loads(path.read_text())
    pred = metadata["network_data_format"]["outputs"]["pred"]
    pred["num_channels"] = count
    pred["channel_def"] = {"0": "background"} | {str(i + 1): f"band {n}" for i, n in enumerate(numbers)}
    path.write_text(json.dumps(metadata))
    return folder


def overlapping(folder, numbers=(10, 40)):
    """A bundle with a mask of what is above the threshold of each of models `numbers`: each contains the next."""
    folder = bands_bundle(folder, numbers)
    model = onnx.load(folder / "models/model.onnx")
    del model.graph.initializer[:]
    count = len(numbers)
    model.graph.initializer.extend([
        helper.make_tensor("w", TensorProto.FLOAT, [count, 1, 1, 1, 1], [1.0] * count),
        helper.make_tensor("b", TensorProto.FLOAT, [count], [-threshold(number) for number in numbers]),
    ])
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = count
    onnx.checker.check_model(model)
    onnx.save(model, folder / "models/model.onnx")
    masks = [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
             {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}]
    (folder / "configs/inference.json").write_text(
        json.dumps(INFERENCE | {"postprocessing": {"_target_": "Compose", "transforms": masks}}))
    path = folder / "configs/metadata.json"
    metadata = json.loads(path.read_text())
    pred = metadata["network_data_format"]["outputs"]["pred"]
    pred["num_channels"] = count
    pred["channel_def"] = {str(i): f"above {n}" for i, n in enumerate(numbers)}
    path.write_text(json.dumps(metadata))
    return folder


def pair_bundle(folder, number):
    """A bundle of two images, "before" and "after"; model `number` looks only at the second."""
    folder = bundle(folder, number)
    model = network(number)
    del model.graph.initializer[:]
    model.graph.initializer.extend([
        helper.make_tensor("w", TensorProto.FLOAT, [2, 2, 1, 1, 1], [0.0, 0.0, 0.0, 1.0]),
        helper.make_tensor("b", TensorProto.FLOAT, [2], [0.0, -threshold(number)]),
    ])
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.checker.check_model(model)
    onnx.save(model, folder / "models/model.onnx")
    path = folder / "configs/metadata.json"
    metadata = json.loads(path.read_text())
    image = metadata["network_data_format"]["inputs"]["image"]
    image |= {"num_channels": 2, "channel_def": {"0": "before", "1": "after"}}
    path.write_text(json.dumps(metadata))
    return folder


def halving(number):
    """Like `network`, but goes down to half the size and back, which does not work for images of odd sizes."""
    tensor = lambda name, shape, values: helper.make_tensor(name, TensorProto.FLOAT, shape, values)
    weights = [
        tensor("up", [1, 1, 2, 2, 2], [0.0] * 8),
        tensor("w", [2, 1, 1, 1, 1], [0.0, 1.0]),
        tensor("b", [2], [0.0, -threshold(number)]),
    ]
    nodes = [
        helper.make_node("MaxPool", ["image"], ["half"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        helper.make_node("ConvTranspose", ["half", "up"], ["whole"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        helper.make_node("Add", ["image", "whole"], ["sum"]),
        helper.make_node("Conv", ["sum", "w", "b"], ["pred"]),
    ]
    value = lambda name, channels: helper.make_tensor_value_info(
        name, TensorProto.FLOAT, ["n", channels, "x", "y", "z"]
    )
    graph = helper.make_graph(nodes, f"halving{number}", [value("image", 1)], [value("pred", 2)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def halving_bundle(folder, number):
    """A bundle of that network that takes images whole."""
    folder = bundle(folder, number)
    inferer = {"inferer": {"_target_": "SimpleInferer"}}
    (folder / "configs/inference.json").write_text(json.dumps(INFERENCE | inferer))
    onnx.save(halving(number), folder / "models/model.onnx")
    return folder


def shaky(number, seed):
    """Like `network`, but about every other run fails: at random, it reads past the end of a list.

    The random numbers continue from run to run of a session, and are the same in the next session.
    """
    # After small seeds, the first numbers that ONNX Runtime draws are all small.
    seed = float(123457 * seed)
    model = network(number)
    graph = model.graph
    graph.node[0].output[0] = "sum"
    graph.initializer.extend([
        helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("list", TensorProto.FLOAT, [1], [0.0]),
    ])
    graph.node.extend([
        helper.make_node("RandomUniform", [], ["chance"], shape=[1], seed=seed),
        helper.make_node("Less", ["chance", "half"], ["behind"]),
        helper.make_node("Cast", ["behind"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["list", "index"], ["nothing"]),
        helper.make_node("Add", ["sum", "nothing"], ["pred"]),
    ])
    # A fixed batch size, so that loading does not try out which one is best.
    for end in (graph.input[0], graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.checker.check_model(model)
    return model


def shaky_bundle(folder, number, seed):
    """A bundle of that network."""
    folder = bundle(folder, number)
    inferer = INFERENCE["inferer"] | {"sw_batch_size": 1}
    (folder / "configs/inference.json").write_text(json.dumps(INFERENCE | {"inferer": inferer}))
    onnx.save(shaky(number, seed), folder / "models/model.onnx")
    return folder


@dataclass
class Images:
    """An image set in a local store."""

    store: Path
    request: dict
    values: np.ndarray

    def voxels(self, number):
        """How many voxels model `number` must find."""
        return int((self.values > threshold(number)).sum())


def images(folder, size=32, slices=12):
    """A small phantom, imported."""
    folder = Path(folder)
    run("phantom", "--out", folder / "phantom", "--size", size, "--slices", slices)
    request = import_dicom(folder / "phantom/dicom", folder / "store")
    values = []
    for file in (folder / "phantom/dicom").rglob("*.dcm"):
        data = pydicom.dcmread(file)
        values.append(data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept))
    return Images(folder / "store", request, np.stack(values))


def check(answer, images, number):
    """What is wrong with an answer of model `number`; None if it is right."""
    segment = answer["results"][0]["segments"][0]
    found = (segment["label"], segment["voxels"])
    expected = (f"Model {number}", images.voxels(number))
    return None if found == expected else f"{found} in place of {expected}"
