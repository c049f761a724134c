"""Normalisations of large windows, written so that ONNX Runtime's CPU kernels compute them accurately.

`InstanceNormalization` and `GroupNormalization` sum all values of a channel or group one after the other in
f32. Over millions of voxels most of the last digits are lost, which moves labels. Here mean and variance are
taken in two stages, over rows of a few thousand values and then over the rows; that loses no more than PyTorch
does, and takes no more memory. (A norm over few values is left as it is.)
"""

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

# Values that one sum may run over. Below it the kernels are as accurate as two stages are.
LONGEST_SUM = 4096
# From this opset on axes of reductions are an input, and GroupNormalization is there.
AXES_AS_INPUT = 18
# From this opset on GroupNormalization scales channels; before it, groups.
SCALES_CHANNELS = 21
SINGLE_PASS = ("InstanceNormalization", "GroupNormalization")


def rewrite(model):
    """Rewrites the norms of a `ModelProto` in place.

    Returns how many were rewritten, and the names of those that were not since their sizes are not known.
    """
    graph = model.graph
    if not any(node.op_type in SINGLE_PASS for node in graph.node):
        return 0, []
    [opset] = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    shapes = known_shapes(model)
    constants = known_constants(graph)
    taken = {name for node in graph.node for name in [*node.input, *node.output]}
    nodes, rewritten, left = [], 0, []
    for node in graph.node:
        if node.op_type not in SINGLE_PASS or node.domain not in ("", "ai.onnx"):
            nodes.append(node)
            continue
        norm = Norm.of(node, shapes.get(node.input[0]), opset)
        if norm is None:
            left.append(node.name or node.output[0])
            nodes.append(node)
        elif norm.values <= LONGEST_SUM:
            nodes.append(node)
        else:
            prefix = f"two_stage_norm_{rewritten}"
            while any(name.startswith(f"{prefix}/") for name in taken):
                prefix += "_"
            writer = Writer(prefix, opset, constants)
            writer.norm(norm)
            nodes.extend(writer.nodes)
            graph.initializer.extend(writer.tensors)
            rewritten += 1
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(graph)
    return rewritten, left


def drop_unused(graph):
    """Takes out constants that only the norms used."""
    used = {name for inner in graphs(graph) for node in inner.node for name in node.input}
    used.update(value.name for value in graph.output)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    nodes = [node for node in graph.node if node.op_type != "Constant" or node.output[0] in used]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


def graphs(graph):
    """A graph and those within its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else ():
                yield from graphs(inner)


def known_shapes(model):
    """Dimensions of values for a batch of one, with None for those that are not fixed."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in single.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    # Outputs and values told of before may name the free size.
    del single.graph.value_info[:]
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(single, data_prop=True).graph
    shapes = {}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = [d.dim_value if d.HasField("dim_value") else None for d in dims]
    return shapes


def known_constants(graph):
    """Small tensors by name."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    small = {name: t for name, t in tensors.items() if math.prod(t.dims) <= 1 << 16 and not t.external_data}
    return {name: numpy_helper.to_array(tensor) for name, tensor in small.items()}


class Norm:
    """A norm whose sizes are known: `groups` of `values` each, out of `channels`."""

    def __init__(self, node, shape, groups, scales_channels):
        self.image, self.scale, self.bias = node.input[:3]
        self.output = node.output[0]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.epsilon = attributes.get("epsilon", 1e-5)
        self.channels, self.spatial = shape[1], shape[2:]
        self.groups, self.scales_channels = groups, scales_channels
        self.values = self.channels // groups * math.prod(self.spatial)

    @classmethod
    def of(cls, node, shape, opset):
        if shape is None or len(shape) < 3 or any(size is None or size < 1 for size in shape[1:]):
            return None
        if node.op_type == "InstanceNormalization":
            return cls(node, shape, shape[1], False)
        groups = next((a.i for a in node.attribute if a.name == "num_groups"), 0)
        if groups < 1 or shape[1] % groups:
            return None
        return cls(node, shape, groups, opset >= SCALES_CHANNELS and groups != shape[1])


def row_length(values):
    """The largest divisor of a count of values that one sum may run over."""
    return max(d for d in range(1, min(values, LONGEST_SUM) + 1) if values % d == 0)


class Writer:
    """Nodes and tensors that take the place of one norm."""

    def __init__(self, prefix, opset, constants):
        self.prefix, self.opset, self.constants = prefix, opset, constants
        self.nodes, self.tensors = [], []

    def value(self, name):
        return f"{self.prefix}/{name}"

    def tensor(self, name, array):
        self.tensors.append(numpy_helper.from_array(array, self.value(name)))
        return self.value(name)

    def add(self, operator, inputs, output, **attributes):
        name = output if output.startswith(self.prefix) else self.value(operator)
        self.nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def reduce(self, operator, value, axis, name):
        if self.opset < AXES_AS_INPUT:
            return self.add(operator, [value], self.value(name), axes=[axis], keepdims=1)
        axes = self.tensor(f"{name}_axes", np.array([axis], np.int64))
        return self.add(operator, [value, axes], self.value(name), keepdims=1)

    def norm(self, norm):
        length = row_length(norm.values)
        f32 = lambda value: np.array(value, np.float32)
        # (N, groups, rows, length)
        rows_shape = self.tensor("rows_shape", np.array([0, norm.groups, -1, length], np.int64))
        rows = self.add("Reshape", [norm.image, rows_shape], self.value("rows"))
        means = self.reduce("ReduceMean", rows, 3, "row_means")
        mean = self.reduce("ReduceMean", means, 2, "mean")
        centred = self.add("Sub", [rows, mean], self.value("centred"))
        squares = self.reduce("ReduceSumSquare", centred, 3, "row_squares")
        square = self.reduce("ReduceMean", squares, 2, "square")
        variance = self.add("Mul", [square, self.tensor("share", f32(1 / length))], self.value("variance"))
        guarded = self.add("Add", [variance, self.tensor("epsilon", f32(norm.epsilon))], self.value("guarded"))
        deviation = self.add("Sqrt", [guarded], self.value("deviation"))
        scale = None if norm.scales_channels else self.factor(norm.scale, 1.0, 3, "scale")
        factor = self.add("Div", [scale or self.tensor("one", f32(1)), deviation], self.value("factor"))
        result = self.add("Mul", [centred, factor], self.value("normalised"))
        if not norm.scales_channels:
            result = self.shifted(result, norm.bias, 3)
        whole = self.tensor("shape", np.array([0, norm.channels, *norm.spatial], np.int64))
        if not norm.scales_channels:
            self.add("Reshape", [result, whole], norm.output)
            return
        result = self.add("Reshape", [result, whole], self.value("whole"))
        if (scale := self.factor(norm.scale, 1.0, len(norm.spatial) + 1, "scale")) is not None:
            result = self.add("Mul", [result, scale], self.value("scaled"))
        result = self.shifted(result, norm.bias, len(norm.spatial) + 1)
        self.add("Identity", [result], norm.output)

    def shifted(self, result, bias, rank):
        """The result with the bias of each group or channel."""
        bias = self.factor(bias, 0.0, rank, "bias")
        return result if bias is None else self.add("Add", [result, bias], self.value("shifted"))

    def factor(self, name, neutral, rank, role):
        """A vector as (channels, 1, …), of `rank`; None where all of it is `neutral`."""
        known = self.constants.get(name)
        if known is not None and np.all(known == neutral):
            return None
        shape = self.tensor(f"{role}_shape", np.array([-1] + [1] * (rank - 1), np.int64))
        return self.add("Reshape", [name, shape], self.value(role))
