//! Finds the norms of a model, and determines which of them can be rewritten.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Result, Seek};
use std::path::Path;

use crate::inference::protobuf::{Content, Reader, malformed};

/// Nesting limit for graphs.
const DEEPEST: usize = 32;

/// Longest accepted name.
const LONGEST_NAME: u64 = 4096;

/// Largest tensor whose values are examined, in bytes.
const LARGEST_VECTOR: u64 = 1 << 18;

/// Oldest operator set that the replacements are written for.
const OLDEST_OPSET: u64 = 13;

/// From this operator set on, `GroupNormalization` scales by channel instead of by group.
const SCALES_CHANNELS: u64 = 21;

/// Limit on rewritten norms: more than any network has.
const MOST_NORMS: usize = 4096;

/// How many norms that cannot be rewritten are listed by name.
const MOST_NAMES: usize = 8;

/// The norms found in a model.
#[derive(Debug, Default)]
pub(in crate::inference) struct Survey {
    /// Version of the operator set.
    pub(super) opset: u64,
    /// Norms that can be rewritten, by the index of their node in the graph.
    pub(super) norms: HashMap<u64, Norm>,
    left: Left,
}

/// Norms that cannot be rewritten: their count, and the names of some.
#[derive(Debug, Default)]
struct Left {
    names: Vec<String>,
    count: usize,
}

impl Left {
    fn add(&mut self, name: String) {
        self.count += 1;
        if self.names.len() < MOST_NAMES {
            self.names.push(name);
        }
    }
}

/// A norm of the main graph.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Norm {
    pub kind: Kind,
    pub epsilon: f32,
    pub image: String,
    /// `None` if all values are 1.
    pub scale: Option<String>,
    /// `None` if all values are 0.
    pub bias: Option<String>,
    pub output: String,
}

/// How values are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By channel.
    Instance,
    /// By group of channels, and scaled by group.
    Groups(i64),
    /// By group of channels, and scaled by channel.
    GroupsOfScaled(i64),
}

/// The relevant parts of a node.
#[derive(Debug, Default)]
struct Node {
    operator: String,
    domain: String,
    name: String,
    inputs: Vec<String>,
    output: String,
    epsilon: Option<f32>,
    groups: Option<i64>,
    /// Value of a `Constant` node.
    value: Option<Vector>,
}

impl Node {
    fn is_norm(&self) -> bool {
        ["", "ai.onnx"].contains(&self.domain.as_str())
            && ["InstanceNormalization", "GroupNormalization"].contains(&self.operator.as_str())
    }
}

/// A tensor of f32 values.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Vector {
    /// The common value of all elements, if there is one and it is known.
    uniform: Option<f32>,
}

impl Survey {
    /// Finds the norms in the model at `path`. A malformed file yields none: ONNX Runtime reports the
    /// error when it loads the model.
    pub fn of(path: &Path) -> Self {
        let file = || File::open(path);
        file().and_then(|first| Self::read(first, &file)).unwrap_or_default()
    }

    fn read<F: Read + Seek>(first: F, again: &dyn Fn() -> Result<F>) -> Result<Self> {
        let mut walk = Walk::new(first, None);
        walk.model()?;
        let Walk { opset, found, left, .. } = walk;
        let mut survey = Self { opset, norms: HashMap::new(), left };
        if found.is_empty() {
            return Ok(survey);
        }
        // Scales and biases may be anywhere in the file.
        let wanted = found.iter().flat_map(|(_, node)| node.inputs[1..].iter().cloned());
        let mut second = Walk::new(again()?, Some(wanted.collect()));
        second.model()?;
        for (index, node) in found {
            match norm(&node, opset, &second.vectors) {
                Some(norm) => {
                    survey.norms.insert(index, norm);
                }
                None => survey.left.add(node.name),
            }
        }
        Ok(survey)
    }

    /// Returns the number of norms that are rewritten.
    pub fn rewritable(&self) -> usize {
        self.norms.len()
    }

    /// Returns a warning about norms that are not rewritten, if there are any.
    pub fn warning(&self) -> Option<String> {
        let Left { names, count } = &self.left;
        let more = if *count > names.len() { ", …" } else { "" };
        (*count > 0).then(|| {
            format!(
                "{count} norms of the network are computed in one pass, which ONNX Runtime does inaccurately \
                 on a CPU where windows are large ({}{more}); export the network again with \
                 model/export_monai_bundle.py",
                names.join(", ")
            )
        })
    }
}

/// Returns the norm of a node, if everything its replacement depends on is known.
fn norm(node: &Node, opset: u64, vectors: &HashMap<String, Vector>) -> Option<Norm> {
    let [image, scale, bias] = &node.inputs[..] else { return None };
    if opset < OLDEST_OPSET || node.output.is_empty() {
        return None;
    }
    // Only f32 is rewritten; scale and bias have the type of the image.
    let unless = |name: &String, neutral: f32| -> Option<Option<String>> {
        let vector = vectors.get(name)?;
        Some((vector.uniform != Some(neutral)).then(|| name.clone()))
    };
    let kind = match (node.operator.as_str(), node.groups) {
        ("InstanceNormalization", _) => Kind::Instance,
        (_, Some(groups)) if groups > 0 && opset >= SCALES_CHANNELS => Kind::GroupsOfScaled(groups),
        (_, Some(groups)) if groups > 0 => Kind::Groups(groups),
        _ => return None,
    };
    Some(Norm {
        kind,
        epsilon: node.epsilon.unwrap_or(1e-5),
        image: image.clone(),
        scale: unless(scale, 1.0)?,
        bias: unless(bias, 0.0)?,
        output: node.output.clone(),
    })
}

/// Walks through the nodes of a model and, in a second pass, through the wanted tensors.
struct Walk<R> {
    input: Reader<R>,
    opset: u64,
    /// Norms of the main graph, by the index of their node.
    found: Vec<(u64, Node)>,
    /// Norms in nested graphs, in functions, and beyond the limit.
    left: Left,
    wanted: Option<HashSet<String>>,
    vectors: HashMap<String, Vector>,
    /// Number of nodes of the main graph so far.
    index: u64,
}

impl<R: Read + Seek> Walk<R> {
    fn new(input: R, wanted: Option<HashSet<String>>) -> Self {
        Self {
            input: Reader::new(input),
            opset: 0,
            found: Vec::new(),
            left: Left::default(),
            wanted,
            vectors: HashMap::new(),
            index: 0,
        }
    }

    fn model(&mut self) -> Result<()> {
        while let Some(field) = self.input.field(u64::MAX)? {
            let Content::Bytes(length) = field.content else { continue };
            let end = self.input.at() + length;
            match field.number {
                7 => self.graph(end, 0)?,
                8 => self.operators(end)?,
                25 => self.function(end)?,
                _ => self.input.skip(length)?,
            }
        }
        Ok(())
    }

    /// Parses an `OperatorSetIdProto`.
    fn operators(&mut self, end: u64) -> Result<()> {
        let (mut domain, mut version) = (String::new(), 0);
        while let Some(field) = self.input.field(end)? {
            match (field.number, field.content) {
                (1, Content::Bytes(length)) => domain = self.input.text(length, LONGEST_NAME)?,
                (2, Content::Number(number)) => version = number,
                (_, Content::Bytes(length)) => self.input.skip(length)?,
                _ => {}
            }
        }
        if domain.is_empty() || domain == "ai.onnx" {
            self.opset = version;
        }
        Ok(())
    }

    fn function(&mut self, end: u64) -> Result<()> {
        while let Some(field) = self.input.field(end)? {
            let Content::Bytes(length) = field.content else { continue };
            match field.number {
                7 => self.nested_node(length, 1)?,
                _ => self.input.skip(length)?,
            }
        }
        Ok(())
    }

    fn graph(&mut self, end: u64, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(malformed());
        }
        while let Some(field) = self.input.field(end)? {
            let Content::Bytes(length) = field.content else { continue };
            match (field.number, depth) {
                (1, 0) => {
                    let node = self.node(self.input.at() + length, depth)?;
                    self.keep(node);
                    self.index += 1;
                }
                (1, _) => self.nested_node(length, depth)?,
                (5, 0) if self.wanted.is_some() => {
                    let (name, vector) = self.tensor(self.input.at() + length)?;
                    self.vector(name, vector);
                }
                _ => self.input.skip(length)?,
            }
        }
        Ok(())
    }

    fn nested_node(&mut self, length: u64, depth: usize) -> Result<()> {
        let node = self.node(self.input.at() + length, depth)?;
        if self.wanted.is_none() && node.is_norm() {
            self.left.add(node.name);
        }
        Ok(())
    }

    fn keep(&mut self, node: Node) {
        if let Some(vector) = node.value {
            self.vector(node.output, Some(vector));
        } else if self.wanted.is_none() && node.is_norm() {
            if node.inputs.len() == 3 && self.found.len() < MOST_NORMS {
                self.found.push((self.index, node));
            } else {
                self.left.add(node.name);
            }
        }
    }

    fn vector(&mut self, name: String, vector: Option<Vector>) {
        let wanted = self.wanted.as_ref().is_some_and(|wanted| wanted.contains(&name));
        if let (true, Some(vector)) = (wanted, vector) {
            self.vectors.insert(name, vector);
        }
    }

    /// Parses a `NodeProto`.
    fn node(&mut self, end: u64, depth: usize) -> Result<Node> {
        let mut node = Node::default();
        while let Some(field) = self.input.field(end)? {
            let Content::Bytes(length) = field.content else { continue };
            match field.number {
                // A norm has three inputs and one output.
                1 if node.inputs.len() <= 3 => {
                    node.inputs.push(self.input.text(length, LONGEST_NAME)?);
                }
                2 if node.output.is_empty() => {
                    node.output = self.input.text(length, LONGEST_NAME)?
                }
                3 => node.name = self.input.text(length, LONGEST_NAME)?,
                4 => node.operator = self.input.text(length, LONGEST_NAME)?,
                5 => self.attribute(&mut node, self.input.at() + length, depth)?,
                7 => node.domain = self.input.text(length, LONGEST_NAME)?,
                _ => self.input.skip(length)?,
            }
        }
        if node.name.is_empty() {
            node.name.clone_from(&node.output);
        }
        Ok(node)
    }

    /// Parses an `AttributeProto`.
    fn attribute(&mut self, node: &mut Node, end: u64, depth: usize) -> Result<()> {
        let (mut name, mut float, mut number) = (String::new(), None, None);
        while let Some(field) = self.input.field(end)? {
            match (field.number, field.content) {
                (1, Content::Bytes(length)) => name = self.input.text(length, LONGEST_NAME)?,
                (2, Content::Fixed32(bytes)) => float = Some(f32::from_le_bytes(bytes)),
                (3, Content::Number(value)) => number = Some(value as i64),
                (5, Content::Bytes(length)) if self.wanted.is_some() => {
                    node.value = self.tensor(self.input.at() + length)?.1;
                }
                (6 | 11, Content::Bytes(length)) => {
                    self.graph(self.input.at() + length, depth + 1)?;
                }
                (_, Content::Bytes(length)) => self.input.skip(length)?,
                _ => {}
            }
        }
        match name.as_str() {
            "epsilon" => node.epsilon = float,
            "num_groups" => node.groups = number,
            _ => {}
        }
        Ok(())
    }

    /// Parses a `TensorProto`: its name, and its values if they are f32.
    fn tensor(&mut self, end: u64) -> Result<(String, Option<Vector>)> {
        const F32: u64 = 1;
        let (mut name, mut kind, mut uniform) = (String::new(), 0, None);
        while let Some(field) = self.input.field(end)? {
            match (field.number, field.content) {
                (2, Content::Number(number)) => kind = number,
                (8, Content::Bytes(length)) => name = self.input.text(length, LONGEST_NAME)?,
                // `float_data` and `raw_data` have the same bytes.
                (4 | 9, Content::Bytes(length)) if length <= LARGEST_VECTOR => {
                    let mut bytes = Vec::with_capacity(length as usize);
                    self.input.read(length, &mut bytes)?;
                    uniform = value_of_all(&bytes);
                }
                (_, Content::Bytes(length)) => self.input.skip(length)?,
                _ => {}
            }
        }
        Ok((name, (kind == F32).then_some(Vector { uniform })))
    }
}

fn value_of_all(bytes: &[u8]) -> Option<f32> {
    let (values, rest) = bytes.as_chunks::<4>();
    let first = *values.first()?;
    (rest.is_empty() && values.iter().all(|value| *value == first))
        .then(|| f32::from_le_bytes(first))
}

#[cfg(test)]
pub(super) mod tests;
