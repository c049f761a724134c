"""A network as an ONNX file."""

import warnings

import onnx
import torch

from . import accurate_norms
from .failure import ExportError

# Above it a file cannot hold its weights (the limit of protobuf).
LARGEST_FILE = (1 << 31) - (1 << 20)
WEIGHTS = "model.onnx.data"
FILE = "model.onnx"


def first_of(output):
    """The segmentation of a network that gives several results: the first."""
    while isinstance(output, (list, tuple, dict)):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output


class Segmentation(torch.nn.Module):
    """A network with its first result alone."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return first_of(self.network(image))


def export(network, folder, shape, opset):
    """Writes `model.onnx` into a folder: batch size free, `shape` (N, C, X, Y[, Z]) for the rest.

    Returns the shape of its result, how many norms were rewritten, and the names of those that were not.
    """
    path = folder / FILE
    try:
        with torch.no_grad():
            result = tuple(first_of(network(torch.zeros(shape))).shape)
    except Exception as error:
        size = " x ".join(map(str, shape[1:]))
        raise ExportError(f"the network cannot run on {size} (channels, window): {str(error).strip()[-400:]}") from error
    # TorchScript is exported as it is, with its loops and conditions.
    module = network if isinstance(network, torch.jit.ScriptModule) else Segmentation(network).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module, (torch.zeros(shape),), str(path), input_names=["image"], output_names=["pred"],
                dynamic_axes={"image": {0: "batch"}, "pred": {0: "batch"}}, opset_version=opset, dynamo=False,
            )
        except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise ExportError(f"PyTorch cannot write this network as ONNX: {' '.join(lines[:3])[:600]}") from error
    model = onnx.load(path)
    keep_first_output(model.graph, result)
    rewritten = accurate_norms.rewrite(model)
    for file in folder.iterdir():
        file.unlink()
    if model.ByteSize() > LARGEST_FILE:
        onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=WEIGHTS)
    else:
        onnx.save(model, path)
    return result, *rewritten


def keep_first_output(graph, shape):
    """Leaves the first tensor of a network that gives several, or a list of them; `shape` is its shape."""
    del graph.output[1:]
    [output] = graph.output
    made = next((node for node in graph.node if output.name in node.output), None)
    if made is not None and made.op_type == "SequenceConstruct":
        graph.node.remove(made)
        graph.node.append(onnx.helper.make_node("Identity", [made.input[0]], [output.name], name="first_output"))
    sizes = ["batch", *shape[1:]]
    output.type.CopyFrom(onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, sizes))
