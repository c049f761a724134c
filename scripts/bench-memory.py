"""Peak memory with 105 classes: a CT of 512 x 512 x 300 voxels resampled to 1.5 mm, in the order of the whole body
bundle (argmax, then back by nearest voxel) and in that of the spleen bundle (probabilities back, then argmax),
axial and oblique. Direction cosines and positions have six decimals, as a scanner writes them.

The network is one convolution, so the measurement shows what the program holds. What ONNX Runtime holds is
measured separately, on an image with a single batch of windows and hardly any other memory.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import pydicom
from onnx import TensorProto, helper

CLASSES = 105
WINDOW = 96
GIB = 2**30
ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("ORT_DYLIB_PATH", str(ROOT / "target/onnxruntime/lib/libonnxruntime.so"))


def network(path):
    """Each class is the intensity times its own weight, plus a bias."""
    generator = np.random.default_rng(1)
    tensors = [
        helper.make_tensor("w", TensorProto.FLOAT, [CLASSES, 1, 1, 1, 1], generator.normal(size=CLASSES).tolist()),
        helper.make_tensor("b", TensorProto.FLOAT, [CLASSES], generator.normal(scale=0.1, size=CLASSES).tolist()),
    ]
    value = lambda name, channels: helper.make_tensor_value_info(
        name, TensorProto.FLOAT, ["n", channels, WINDOW, WINDOW, WINDOW])
    graph = helper.make_graph([helper.make_node("Conv", ["image", "w", "b"], ["pred"])], "conv",
                              [value("image", 1)], [value("pred", CLASSES)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def bundle(folder, order, overlap):
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True)
    network(folder / "models/model.onnx")
    back = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
            "nearest_interp": order == "labels", "to_tensor": True}
    argmax = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    softmax = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
    config = {
        "preprocessing": {"_target_": "Compose", "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 1.5], "mode": "bilinear"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164, "b_min": 0,
             "b_max": 1, "clip": True},
        ]},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [WINDOW] * 3, "sw_batch_size": 1,
                    "overlap": overlap},
        "postprocessing": {"_target_": "Compose",
                           "transforms": [softmax, *([argmax, back] if order == "labels" else [back, argmax])]},
    }
    (folder / "configs/inference.json").write_text(json.dumps(config))
    classes = {"0": "background"} | {str(i): f"class {i}" for i in range(1, CLASSES)}
    tensor = {"type": "image", "spatial_shape": [WINDOW] * 3, "dtype": "float32"}
    metadata = {"name": f"memory {order}", "version": "1", "network_data_format": {
        "inputs": {"image": tensor | {"num_channels": 1, "channel_def": {"0": "image"}}},
        "outputs": {"pred": tensor | {"num_channels": CLASSES, "channel_def": classes}}}}
    (folder / "configs/metadata.json").write_text(json.dumps(metadata))
    return folder


def turned(folder, degrees=(11.0, -7.0, 5.0)):
    """Rotates a series about the three axes, in place."""
    a, b, c = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    rotation = x @ y @ z
    for path in sorted(folder.iterdir()):
        image = pydicom.dcmread(path)
        for name in ("ImageOrientationPatient", "ImagePositionPatient"):
            vectors = np.array(image[name].value, dtype=float).reshape(-1, 3) @ rotation.T
            setattr(image, name, [f"{value:.6f}" for value in vectors.ravel()])
        image.save_as(path)


def peak(program, *arguments):
    """Runs the program to completion; returns seconds, peak resident memory in bytes, and what it printed."""
    started = time.monotonic()
    process = subprocess.Popen([program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    report = process.stdout.read()
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(errors.decode())
    return time.monotonic() - started, usage.ru_maxrss * 1024, report


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--pixel", type=float, default=0.9765625, help="spacing of columns and rows in mm")
    parser.add_argument("--slice", type=float, default=1.5, help="spacing of slices in mm")
    arguments = parser.parse_args()
    program = arguments.program.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        peak(program, "phantom", "--out", folder / "one", "--size", 96, "--slices", 96,
             "--spacing", 1.5, "--slice-spacing", 1.5)
        peak(program, "phantom", "--out", folder / "ct", "--size", arguments.size, "--slices", arguments.slices,
             "--spacing", arguments.pixel, "--slice-spacing", arguments.slice)
        print(f"{arguments.size} x {arguments.size} x {arguments.slices}, {CLASSES} classes, "
              f"{arguments.pixel} x {arguments.slice} mm to 1.5 mm")
        models = {order: (bundle(folder / order, order, overlap), overlap)
                  for order, overlap in (("labels", 0.25), ("probabilities", 0.5))}
        _, alone, _ = peak(
            program, "run", folder / "one/dicom", "--model", models["labels"][0], "--out", folder / "out-one")
        # Apart from one window of sums, the small run holds what ONNX Runtime and the program hold anyway.
        alone = max(alone - CLASSES * WINDOW**3 * 4, 0)
        held = {}
        for orientation in ("axial", "oblique"):
            if orientation == "oblique":
                turned(folder / "ct/dicom")
            for order, (model, overlap) in models.items():
                out = folder / f"out-{orientation}-{order}"
                seconds, whole, report = peak(program, "run", folder / "ct/dicom", "--model", model, "--out", out)
                found = json.loads(report)
                grid = re.sub(r"\s", "", json.dumps(found["geometry"]["networkDimensions"]))
                held[orientation, order] = whole - alone
                beside = ""
                if orientation == "oblique":
                    beside = f" ({held[orientation, order] / held['axial', order]:.2f} times the axial one's)"
                print(f"{orientation}, {order} (overlap {overlap}, network grid {grid}): peak resident memory "
                      f"{whole / GIB:.2f} GiB, beside ONNX Runtime's {alone / GIB:.2f} GiB: "
                      f"{(whole - alone) / GIB:.2f} GiB{beside}; {seconds:.0f} s, {found['windows']} windows", flush=True)


if __name__ == "__main__":
    main()
