//! Reads a network's inputs and outputs from its session.

use ort::session::Session;
use ort::value::{TensorElementType, ValueType};

use super::shape::NetworkShape;

/// Returns the name of the single input, the name of the output and their shapes.
pub(super) fn describe(session: &Session) -> Result<(String, NetworkShape), String> {
    let [input] = session.inputs() else {
        return Err(format!("the network has {} inputs; one is supported", session.inputs().len()));
    };
    let [output, ..] = session.outputs() else {
        return Err("the network has no output".to_owned());
    };
    let inputs = dimensions("input", input.dtype())?;
    let outputs = dimensions("output", output.dtype())?;
    if inputs.len() != outputs.len() {
        return Err(format!(
            "the network's input has {} dimensions, its output {}",
            inputs.len(),
            outputs.len()
        ));
    }
    let (batch, input_channels, spatial, planar) = match inputs[..] {
        [batch, channels, x, y] => (batch, channels, [x, y, Some(1)], true),
        [batch, channels, x, y, z] => (batch, channels, [x, y, z], false),
        _ => return Err(wrong_dimensions("input", inputs.len())),
    };
    let shape =
        NetworkShape { batch, input_channels, spatial, output_channels: outputs[1], planar };
    Ok((input.name().to_owned(), shape))
}

fn wrong_dimensions(what: &str, count: usize) -> String {
    format!("the network's {what} has {count} dimensions in place of 5 (N, C, X, Y, Z), or 4")
}

/// Returns the sizes of a 4D or 5D tensor.
fn dimensions(what: &str, value: &ValueType) -> Result<Vec<Option<usize>>, String> {
    let shape = match value {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => shape,
        ValueType::Tensor { ty, .. } => {
            return Err(format!(
                "the network's {what} is a tensor of {ty}; float32 is wanted: export it again with that \
                 (model/convert_fp16.py leaves input and output in float32)"
            ));
        }
        _ => return Err(format!("the network's {what} is no tensor; a float32 tensor is wanted")),
    };
    match shape.len() {
        4 | 5 => Ok(shape.iter().map(|&d| usize::try_from(d).ok()).collect()),
        count => Err(wrong_dimensions(what, count)),
    }
}
