#!/usr/bin/env python3
"""Exports the network of a MONAI bundle to ONNX and checks it against PyTorch.

    python model/export_monai_bundle.py BUNDLE [--pack model.tar.gz] [--opset 17] [--inputs 3]

Takes `models/model.ts` (TorchScript) or, where there is none, `models/model.pt` with the network that
`configs/inference.json` defines; writes `models/model.onnx` with a free batch size and the window of
the bundle's inferer, and prints a JSON report: shapes, opset, and the largest difference between
PyTorch and ONNX Runtime over random inputs, for one window and for the bundle's batch of them. A
difference above the tolerance is an error, and no file is left behind. --pack adds what a SageMaker
endpoint takes: the bundle's configuration, the ONNX file and `serving.json`, with nothing above them.

Needs model/requirements.txt.
"""

import argparse
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from monai.bundle import ConfigParser


def load_network(bundle, parser):
    """The network in evaluation mode, and where it came from."""
    script = bundle / "models/model.ts"
    if script.is_file():
        return torch.jit.load(script, map_location="cpu").eval(), "models/model.ts"
    weights = bundle / "models/model.pt"
    if not weights.is_file():
        sys.exit(f"error: {bundle} has neither models/model.ts nor models/model.pt")
    network = parser.get_parsed_content("network_def")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict(state.get("model", state.get("state_dict", state)))
    return network.eval(), "models/model.pt"


def input_shape(parser):
    """Channels, window and batch of the network as the bundle runs it."""
    image = next(iter(parser.get("_meta_")["network_data_format"]["inputs"].values()))
    inferer = parser.get("inferer") or {}
    window = parser.get_parsed_content("inferer#roi_size") if "roi_size" in inferer else image["spatial_shape"]
    if not all(isinstance(size, int) and size > 0 for size in window):
        sys.exit(f"error: the window {window} is not of fixed size; the export needs one")
    batch = parser.get_parsed_content("inferer#sw_batch_size") if "sw_batch_size" in inferer else 1
    return image["num_channels"], list(window), int(batch)


def first_of(output):
    """The segmentation of a network that gives several results."""
    return output[0] if isinstance(output, (list, tuple)) else output


class Segmentation(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return first_of(self.network(image))


def export(network, path, shape, opset):
    torch.onnx.export(
        network if isinstance(network, torch.jit.ScriptModule) else Segmentation(network).eval(),
        (torch.zeros(shape),), str(path), input_names=["image"], output_names=["pred"],
        dynamic_axes={"image": {0: "batch"}, "pred": {0: "batch"}}, opset_version=opset, dynamo=False,
    )


def largest_difference(network, path, shape, inputs, seed):
    """Largest absolute difference and the largest absolute value, over random inputs."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(seed)
    worst = largest = 0.0
    for _ in range(inputs):
        image = generator.standard_normal(shape, dtype=np.float32)
        with torch.inference_mode():
            expected = first_of(network(torch.from_numpy(image))).numpy()
        [found] = session.run(["pred"], {"image": image})
        if found.shape != expected.shape:
            sys.exit(f"error: ONNX Runtime gives {found.shape}, PyTorch {expected.shape}")
        worst = max(worst, float(np.abs(found - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
    return worst, largest, list(expected.shape)


def pack(bundle, archive):
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("configs", "models/model.onnx", "serving.json"):
            if (bundle / name).exists():
                tar.add(bundle / name, arcname=name)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--pack", type=Path, metavar="FILE", help="write a model.tar.gz")
    arguments.add_argument("--opset", type=int, default=17)
    arguments.add_argument("--inputs", type=int, default=3, help="random inputs to compare with")
    arguments.add_argument("--tolerance", type=float, default=1e-4, help="largest difference over the largest value")
    options = arguments.parse_args()

    parser = ConfigParser()
    parser.read_config(options.bundle / "configs/inference.json")
    parser.read_meta(options.bundle / "configs/metadata.json")
    parser["bundle_root"] = str(options.bundle)
    network, source = load_network(options.bundle, parser)
    channels, window, batch = input_shape(parser)
    path = options.bundle / "models/model.onnx"
    candidate = path.with_suffix(".onnx.new")
    export(network, candidate, (1, channels, *window), options.opset)
    report = {"source": source, "opset": options.opset, "input": [channels, *window], "parity": []}
    agrees = True
    for size in sorted({1, batch}):
        worst, largest, output = largest_difference(network, candidate, (size, channels, *window), options.inputs, size)
        agrees &= worst <= options.tolerance * max(1.0, largest)
        report["parity"].append({"batch": size, "largestDifference": worst, "largestValue": largest, "output": output})
    if not agrees:
        candidate.unlink()
        print(json.dumps(report, indent=2))
        sys.exit("error: ONNX Runtime and PyTorch differ by more than the tolerance; nothing was written")
    candidate.replace(path)
    report["onnx"] = {"file": str(path), "bytes": path.stat().st_size}
    if options.pack:
        pack(options.bundle, options.pack)
        report["package"] = {"file": str(options.pack), "bytes": options.pack.stat().st_size}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
