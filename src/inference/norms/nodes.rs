//! Builds the nodes that replace a norm, as ONNX messages (onnx.proto).

use super::survey::{Kind, Norm};
use crate::inference::protobuf::{put_bytes, put_number, put_varint};

/// The most values that one sum runs over.
pub(super) const LONGEST_ROW: i64 = 4096;

/// From this operator set on, reductions take their axes as an input; before, as an attribute.
const AXES_AS_INPUT: u64 = 18;

/// Prefix of the names of all values that are not the model's own.
const PREFIX: &str = "ahi_inference/two_stage_norms";

/// An attribute of a node.
enum Attribute<'a> {
    Int(&'a str, i64),
    Ints(&'a str, &'a [i64]),
    Tensor(&'a str, Tensor<'a>),
}

/// A 1D tensor, or an f32 scalar.
enum Tensor<'a> {
    I64(&'a [i64]),
    F32(f32),
}

/// Writes nodes as fields of a graph.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    opset: u64,
    prefix: String,
}

/// Writes the constants that all norms share.
pub(super) fn shared(out: &mut Vec<u8>, opset: u64) {
    let mut writer = Writer { out, opset, prefix: PREFIX.to_owned() };
    let divisors: Vec<i64> = (1..=LONGEST_ROW).collect();
    for (name, values) in [
        ("divisors", &divisors[..]),
        ("0", &[0]),
        ("1", &[1]),
        ("2", &[2]),
        ("3", &[3]),
        ("end", &[i64::MAX]),
        ("rest", &[-1]),
        ("column", &[-1, 1]),
        ("columns", &[-1, 1, 1]),
    ] {
        writer.constant(name, Tensor::I64(values));
    }
    writer.constant("unit", Tensor::F32(1.0));
}

/// Writes the nodes of norm number `index`.
pub(super) fn replacement(out: &mut Vec<u8>, opset: u64, index: usize, norm: &Norm) {
    Writer { out, opset, prefix: format!("{PREFIX}/{index}") }.norm(norm);
}

fn common(name: &str) -> String {
    format!("{PREFIX}/{name}")
}

impl Writer<'_> {
    fn norm(&mut self, norm: &Norm) {
        let [zero, one, two] = ["0", "1", "2"].map(common);
        let shape = self.add("Shape", &[&norm.image], "shape", &[]);
        // The leading dimensions that stay: (N, C), or (N) and the number of groups.
        let (kept, groups) = match norm.kind {
            Kind::Instance => (&two, None),
            Kind::Groups(groups) | Kind::GroupsOfScaled(groups) => {
                (&one, Some(self.constant("groups", Tensor::I64(&[groups]))))
            }
        };
        let length = self.row_length(&shape, kept, groups.as_deref());
        let outer = self.add("Slice", &[&shape, &zero, kept], "outer", &[]);
        let rest = common("rest");
        let mut parts = vec![outer.as_str()];
        parts.extend(groups.as_deref());
        parts.extend([rest.as_str(), &length]);
        let target = self.add("Concat", &parts, "target", &[Attribute::Int("axis", 0)]);
        // (N, groups, rows, length)
        let rows = self.add("Reshape", &[&norm.image, &target], "rows", &[]);
        let centred = {
            let means = self.reduce("ReduceMean", &rows, 3, "row_means");
            let mean = self.reduce("ReduceMean", &means, 2, "mean");
            self.add("Sub", &[&rows, &mean], "centred", &[])
        };
        let deviation = self.deviation(&centred, &length, norm.epsilon);
        let by_channel = matches!(norm.kind, Kind::GroupsOfScaled(_));
        let columns = common("columns");
        let scale = match &norm.scale {
            Some(scale) if !by_channel => self.add("Reshape", &[scale, &columns], "scale", &[]),
            _ => common("unit"),
        };
        let factor = self.add("Div", &[&scale, &deviation], "factor", &[]);
        let mut result = self.add("Mul", &[&centred, &factor], "normalised", &[]);
        if by_channel {
            result = self.scaled_by_channel(result, &shape, norm);
        } else if let Some(bias) = &norm.bias {
            let bias = self.add("Reshape", &[bias, &columns], "bias", &[]);
            result = self.add("Add", &[&result, &bias], "shifted", &[]);
        }
        self.node("Reshape", &[&result, &shape], &norm.output, &[]);
    }

    /// Computes the length of a row: the largest divisor of a group's size that one sum may run over.
    fn row_length(&mut self, shape: &str, kept: &str, groups: Option<&str>) -> String {
        let [zero, one, end, divisors] = ["0", "1", "end", "divisors"].map(common);
        let sizes = self.add("Slice", &[shape, kept, &end], "sizes", &[]);
        let mut values = self.add("ReduceProd", &[&sizes], "values", &[]);
        if let Some(groups) = groups {
            values = self.add("Div", &[&values, groups], "values_of_group", &[]);
        }
        let over = self.add("Mod", &[&values, &divisors], "over", &[]);
        let divides = self.add("Equal", &[&over, &zero], "divides", &[]);
        let lengths = self.add("Where", &[&divides, &divisors, &one], "lengths", &[]);
        self.add("ReduceMax", &[&lengths], "length", &[])
    }

    /// Computes the square root of variance plus epsilon.
    fn deviation(&mut self, centred: &str, length: &str, epsilon: f32) -> String {
        let squares = self.reduce("ReduceSumSquare", centred, 3, "row_squares");
        let square = self.reduce("ReduceMean", &squares, 2, "square");
        let count = self.add("Cast", &[length], "count", &[Attribute::Int("to", 1)]);
        let variance = self.add("Div", &[&square, &count], "variance", &[]);
        let epsilon = self.constant("epsilon", Tensor::F32(epsilon));
        let guarded = self.add("Add", &[&variance, &epsilon], "guarded", &[]);
        self.add("Sqrt", &[&guarded], "deviation", &[])
    }

    /// Reshapes to (N, C, all other dimensions as one) and applies the scale and bias of each channel.
    fn scaled_by_channel(&mut self, mut result: String, shape: &str, norm: &Norm) -> String {
        let [zero, two, rest, column] = ["0", "2", "rest", "column"].map(common);
        if norm.scale.is_none() && norm.bias.is_none() {
            return result;
        }
        let channels = self.add("Slice", &[shape, &zero, &two], "channels", &[]);
        let target =
            self.add("Concat", &[&channels, &rest], "channel_shape", &[Attribute::Int("axis", 0)]);
        result = self.add("Reshape", &[&result, &target], "by_channel", &[]);
        if let Some(scale) = &norm.scale {
            let scale = self.add("Reshape", &[scale, &column], "scale", &[]);
            result = self.add("Mul", &[&result, &scale], "scaled", &[]);
        }
        if let Some(bias) = &norm.bias {
            let bias = self.add("Reshape", &[bias, &column], "bias", &[]);
            result = self.add("Add", &[&result, &bias], "shifted", &[]);
        }
        result
    }

    fn reduce(&mut self, operator: &str, value: &str, axis: i64, name: &str) -> String {
        if self.opset < AXES_AS_INPUT {
            return self.add(operator, &[value], name, &[Attribute::Ints("axes", &[axis])]);
        }
        self.add(operator, &[value, &common(&axis.to_string())], name, &[])
    }

    fn constant(&mut self, name: &str, value: Tensor) -> String {
        self.add("Constant", &[], name, &[Attribute::Tensor("value", value)])
    }

    /// Adds a node and returns its uniquely named output.
    fn add(
        &mut self,
        operator: &str,
        inputs: &[&str],
        name: &str,
        attributes: &[Attribute],
    ) -> String {
        let output = format!("{}/{name}", self.prefix);
        self.node(operator, inputs, &output, attributes);
        output
    }

    fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[Attribute]) {
        let mut node = Vec::new();
        for input in inputs {
            put_bytes(&mut node, 1, input.as_bytes());
        }
        put_bytes(&mut node, 2, output.as_bytes());
        put_bytes(&mut node, 4, operator.as_bytes());
        for attribute in attributes {
            put_bytes(&mut node, 5, &attribute.message());
        }
        put_bytes(self.out, 1, &node);
    }
}

impl Attribute<'_> {
    /// Encodes an `AttributeProto`.
    fn message(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let kind = match self {
            Self::Int(name, value) => {
                put_bytes(&mut out, 1, name.as_bytes());
                put_number(&mut out, 3, *value as u64);
                2
            }
            Self::Ints(name, values) => {
                put_bytes(&mut out, 1, name.as_bytes());
                values.iter().for_each(|value| put_number(&mut out, 8, *value as u64));
                7
            }
            Self::Tensor(name, tensor) => {
                put_bytes(&mut out, 1, name.as_bytes());
                put_bytes(&mut out, 5, &tensor.message());
                4
            }
        };
        put_number(&mut out, 20, kind);
        out
    }
}

impl Tensor<'_> {
    /// Encodes a `TensorProto`.
    fn message(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::I64(values) => {
                put_number(&mut out, 1, values.len() as u64);
                put_number(&mut out, 2, 7);
                let mut packed = Vec::new();
                values.iter().for_each(|value| put_varint(&mut packed, *value as u64));
                put_bytes(&mut out, 7, &packed);
            }
            Self::F32(value) => {
                put_number(&mut out, 2, 1);
                put_bytes(&mut out, 9, &value.to_le_bytes());
            }
        }
        out
    }
}
