//! Surveys of networks of various forms.

use std::io::Cursor;

use super::*;
use crate::inference::protobuf::{put_bytes, put_fixed32, put_number};

/// Encodes a node; its attributes are encoded messages.
pub fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    inputs.iter().for_each(|input| put_bytes(&mut out, 1, input.as_bytes()));
    put_bytes(&mut out, 2, output.as_bytes());
    put_bytes(&mut out, 4, operator.as_bytes());
    attributes.iter().for_each(|attribute| put_bytes(&mut out, 5, attribute));
    out
}

pub fn vector(name: &str, kind: u64, values: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, 1, values.len() as u64);
    put_number(&mut out, 2, kind);
    put_bytes(&mut out, 8, name.as_bytes());
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    put_bytes(&mut out, 9, &raw);
    out
}

pub fn attribute(name: &str, write: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    write(&mut out);
    out
}

/// Encodes a model of nodes and tensors.
pub fn model(opset: u64, nodes: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let mut graph = Vec::new();
    nodes.iter().for_each(|node| put_bytes(&mut graph, 1, node));
    tensors.iter().for_each(|tensor| put_bytes(&mut graph, 5, tensor));
    let mut operators = Vec::new();
    put_number(&mut operators, 2, opset);
    let mut out = Vec::new();
    put_number(&mut out, 1, 8);
    put_bytes(&mut out, 7, &graph);
    put_bytes(&mut out, 8, &operators);
    out
}

/// Appends the input `image` and the output `pred` to a model: a second part of its graph, which
/// decoders merge with the first.
pub fn value_info(model: &mut Vec<u8>, dims: &[&str]) {
    let mut graph = Vec::new();
    for (field, name) in [(11, "image"), (12, "pred")] {
        let (mut shape, mut tensor, mut kind, mut info) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for dim in dims {
            let mut message = Vec::new();
            match dim.parse() {
                Ok(size) => put_number(&mut message, 1, size),
                Err(_) => put_bytes(&mut message, 2, dim.as_bytes()),
            }
            put_bytes(&mut shape, 1, &message);
        }
        put_number(&mut tensor, 1, 1);
        put_bytes(&mut tensor, 2, &shape);
        put_bytes(&mut kind, 1, &tensor);
        put_bytes(&mut info, 1, name.as_bytes());
        put_bytes(&mut info, 2, &kind);
        put_bytes(&mut graph, field, &info);
    }
    put_bytes(&mut graph, 2, b"graph");
    put_bytes(model, 7, &graph);
}

fn survey(model: &[u8]) -> Survey {
    Survey::read(Cursor::new(model), &|| Ok(Cursor::new(model))).unwrap()
}

fn instance(inputs: &[&str], output: &str) -> Vec<u8> {
    let epsilon = attribute("epsilon", |out| put_fixed32(out, 2, 1e-3_f32.to_le_bytes()));
    node("InstanceNormalization", inputs, output, &[epsilon])
}

#[test]
fn norms_are_found_with_what_they_are_scaled_by() {
    let constant = attribute("value", |out| put_bytes(out, 5, &vector("", 1, &[0.0; 4])));
    let nodes = [
        node("Relu", &["image"], "a", &[]),
        node("Constant", &[], "zeros", &[constant]),
        instance(&["a", "scale", "zeros"], "b"),
        node(
            "GroupNormalization",
            &["b", "ones", "bias"],
            "c",
            &[attribute("num_groups", |out| put_number(out, 3, 2))],
        ),
    ];
    let tensors = [
        vector("scale", 1, &[1.0, 2.0]),
        vector("bias", 1, &[0.0, 1.0]),
        vector("ones", 1, &[1.0; 4]),
    ];
    let found = survey(&model(21, &nodes, &tensors));
    assert_eq!((found.rewritable(), found.warning(), found.opset), (2, None, 21));
    let text = |name: &str| name.to_owned();
    let first = Norm {
        kind: Kind::Instance,
        epsilon: 1e-3,
        image: text("a"),
        scale: Some(text("scale")),
        bias: None,
        output: text("b"),
    };
    assert_eq!(found.norms[&2], first);
    let group = &found.norms[&3];
    assert_eq!(
        (group.kind, &group.scale, &group.bias),
        (Kind::GroupsOfScaled(2), &None, &Some(text("bias")))
    );
    assert_eq!(survey(&model(20, &nodes, &tensors)).norms[&3].kind, Kind::Groups(2));
}

#[test]
fn what_cannot_be_rewritten_is_told_of() {
    let half = [vector("s", 10, &[1.0]), vector("b", 1, &[0.0])];
    let given = [vector("s", 1, &[1.0]), vector("b", 1, &[0.0])];
    let norm = instance(&["image", "s", "b"], "pred");
    for (what, bytes) in [
        ("half precision", model(17, std::slice::from_ref(&norm), &half)),
        ("old operators", model(12, std::slice::from_ref(&norm), &given)),
        ("a scale that is computed", model(17, &[instance(&["image", "x", "b"], "pred")], &given)),
        ("two inputs", model(17, &[instance(&["image", "s"], "pred")], &given)),
        (
            "no groups",
            model(21, &[node("GroupNormalization", &["image", "s", "b"], "pred", &[])], &given),
        ),
    ] {
        let found = survey(&bytes);
        assert_eq!(found.rewritable(), 0, "{what}");
        assert!(found.warning().unwrap().contains("(pred)"), "{what}");
    }
    // Inside a loop.
    let mut body = Vec::new();
    put_bytes(&mut body, 1, &norm);
    let inner = attribute("body", |out| put_bytes(out, 6, &body));
    let found = survey(&model(17, &[node("Loop", &[], "l", &[inner])], &given));
    assert_eq!((found.rewritable(), found.warning().is_some()), (0, true));
    let other = survey(&model(17, &[node("Conv", &["image", "s"], "pred", &[])], &given));
    assert_eq!((other.rewritable(), other.warning()), (0, None));
}

#[test]
fn what_is_no_model_has_none() {
    let bytes = model(17, &[instance(&["image", "s", "b"], "pred")], &[vector("s", 1, &[1.0])]);
    for cut in 0..bytes.len() {
        let cut = &bytes[..cut];
        let _ = Survey::read(Cursor::new(cut), &|| Ok(Cursor::new(cut)));
    }
    let deep = (0..200).fold(instance(&["a", "b", "c"], "d"), |inner, _| {
        let mut graph = Vec::new();
        put_bytes(&mut graph, 1, &inner);
        node("If", &[], "x", &[attribute("then_branch", |out| put_bytes(out, 6, &graph))])
    });
    let bytes = model(17, &[deep], &[]);
    assert!(Survey::read(Cursor::new(&bytes), &|| Ok(Cursor::new(&bytes))).is_err());
    assert_eq!(Survey::of(Path::new("/nowhere")).rewritable(), 0);
}
