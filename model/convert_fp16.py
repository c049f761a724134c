#!/usr/bin/env python3
"""Converts a bundle's network to half precision, and shows what that costs.

    python model/convert_fp16.py BUNDLE [--weights] [--name NAME] [--runs 4]

Writes models/NAME (model_fp16.onnx by default) next to models/model.onnx. Input and output stay f32. Without
--weights, everything in between is computed in half precision, for GPUs: `serving.json` then says {"execution":
{"gpuModel": NAME}}. With --weights (model_fp16_weights.onnx), only large weights are stored in half precision, and
the computation stays f32: half the file size, for CPUs, with {"execution": {"cpuModel": NAME}}. Prints the largest
difference of results over random inputs, and the share of voxels whose label (argmax, or sign for one class) stays
the same, both run on the CPU. `ahi-inference bundle compare BUNDLE DICOM --network NAME` compares them on a
series.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16


def shape_of(session, patch):
    """The input's shape; dimensions it leaves open become a batch of one and the bundle's patch."""
    dims = session.get_inputs()[0].shape
    fixed = [d if isinstance(d, int) else None for d in dims]
    spatial = [given or size for given, size in zip(fixed[2:], patch)]
    return [fixed[0] or 1, fixed[1] or 1, *spatial]


def with_half_weights(model, least=1024):
    """The model with f32 tensors of at least `least` values in half precision, cast back where they are used."""
    initializers, casts = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        # Tensors with values that half precision cannot hold are kept.
        if values.dtype != np.float32 or values.size < least or np.abs(values).max() > np.finfo(np.float16).max:
            initializers.append(tensor)
            continue
        half = f"{tensor.name}__half"
        initializers.append(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [tensor.name], name=f"{half}_cast", to=TensorProto.FLOAT))
    nodes = casts + list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(initializers)
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def labels(result):
    return (result > 0).astype(np.uint8) if result.shape[1] == 1 else result.argmax(axis=1)


def patch_of(bundle):
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    size = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    return [d if isinstance(d, int) else 96 for d in size]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--weights", action="store_true", help="keep weights in half precision and compute in f32")
    parser.add_argument("--name", help="file in models/")
    parser.add_argument("--runs", type=int, default=4)
    arguments = parser.parse_args()
    source = arguments.bundle / "models/model.onnx"
    if arguments.weights:
        target = source.with_name(arguments.name or "model_fp16_weights.onnx")
        onnx.save(with_half_weights(onnx.load(source)), target)
    else:
        target = source.with_name(arguments.name or "model_fp16.onnx")
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)

    full, half = (onnxruntime.InferenceSession(str(p), providers=["CPUExecutionProvider"]) for p in (source, target))
    name = full.get_inputs()[0].name
    shape = shape_of(full, patch_of(arguments.bundle))
    generator = np.random.default_rng(1)
    worst, same, voxels = 0.0, 0, 0
    for _ in range(arguments.runs):
        image = generator.random(shape, dtype=np.float32)
        a, b = (session.run(None, {name: image})[0] for session in (full, half))
        worst = max(worst, float(np.abs(a - b).max()))
        same += int((labels(a) == labels(b)).sum())
        voxels += labels(a).size
    print(f"{target.name}: {target.stat().st_size / source.stat().st_size:.2f} of the size; over {arguments.runs} random "
          f"inputs of {shape}: largest difference {worst:.3g}, labels equal {same / voxels:.4%}")


if __name__ == "__main__":
    main()
