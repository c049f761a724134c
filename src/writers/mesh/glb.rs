//! Binary glTF 2.0 (Khronos, ISO/IEC 12113): a JSON chunk that describes, a binary one with the
//! numbers.
//!
//! Each segment has a node, a mesh and a material of its label, and the node's `extras` have its
//! number. The root node takes the vertices' millimetres in LPS+ to glTF's metres with +Y upwards and
//! the front to +Z: X stays (left), the head's direction becomes Y, and the front is the direction
//! against Y.

use serde_json::{Map, Value, json};

use super::place::Placed;
use crate::error::{Error, Result};

/// One segment's mesh.
pub(super) struct Part<'a> {
    /// Its Segment Number.
    pub number: u16,
    /// What it is called.
    pub name: &'a str,
    /// Its display colour, sRGB.
    pub color: [u8; 3],
    /// Its mesh.
    pub mesh: &'a Placed,
}

/// A quarter turn about X, from Z upwards to Y upwards, as a quaternion (x, y, z, w).
const Y_UPWARDS: [f64; 4] =
    [-std::f64::consts::FRAC_1_SQRT_2, 0.0, 0.0, std::f64::consts::FRAC_1_SQRT_2];
/// Metres of a millimetre.
const METRE: f64 = 0.001;
/// What buffer views are used for.
const ARRAY_BUFFER: u32 = 34962;
const ELEMENT_ARRAY_BUFFER: u32 = 34963;
/// Types of numbers.
const UNSIGNED_INT: u32 = 5125;
const FLOAT: u32 = 5126;

/// A file as it grows.
#[derive(Debug, Default)]
pub(super) struct Writer {
    binary: Vec<u8>,
    views: Vec<Value>,
    accessors: Vec<Value>,
    meshes: Vec<Value>,
    materials: Vec<Value>,
    nodes: Vec<Value>,
}

impl Writer {
    /// One without meshes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mesh.
    ///
    /// # Errors
    /// [`Error::internal`] where the file would have more than the 4 GiB that its format allows.
    pub fn append(&mut self, part: &Part) -> Result<()> {
        let mesh = part.mesh;
        let count = mesh.vertices.len();
        let (low, high) = bounds(&mesh.vertices);
        let view = self.view(floats(&mesh.vertices), count * 12, ARRAY_BUFFER)?;
        let position = self.accessor(json!({
            "bufferView": view, "componentType": FLOAT, "count": count, "type": "VEC3",
            "min": low, "max": high,
        }));
        let view = self.view(floats(&mesh.normals), count * 12, ARRAY_BUFFER)?;
        let normal = self.accessor(json!({
            "bufferView": view, "componentType": FLOAT, "count": count, "type": "VEC3",
        }));
        let count = mesh.triangles.len() * 3;
        let indices = mesh.triangles.iter().flatten().map(|index| index.to_le_bytes());
        let view = self.view(indices, count * 4, ELEMENT_ARRAY_BUFFER)?;
        let indices = self.accessor(json!({
            "bufferView": view, "componentType": UNSIGNED_INT, "count": count, "type": "SCALAR",
        }));

        let [red, green, blue] = part.color.map(linear);
        self.materials.push(json!({
            "name": part.name,
            "pbrMetallicRoughness": {
                "baseColorFactor": [red, green, blue, 1.0],
                "metallicFactor": 0.0,
                "roughnessFactor": 0.7,
            },
        }));
        let index = self.meshes.len();
        self.meshes.push(json!({
            "name": part.name,
            "primitives": [{
                "attributes": {"POSITION": position, "NORMAL": normal},
                "indices": indices,
                "material": index,
                // Triangles.
                "mode": 4,
            }],
        }));
        self.nodes.push(json!({
            "name": part.name, "mesh": index, "extras": {"segmentNumber": part.number},
        }));
        Ok(())
    }

    /// Adds numbers, each of four bytes, so that all are aligned.
    fn view(
        &mut self,
        numbers: impl Iterator<Item = [u8; 4]>,
        bytes: usize,
        target: u32,
    ) -> Result<usize> {
        let start = self.binary.len();
        if start.saturating_add(bytes) > LARGEST_BINARY {
            return Err(Error::internal("more than 4 GiB in a glTF file"));
        }
        self.binary.reserve(bytes);
        numbers.for_each(|number| self.binary.extend(number));
        let index = self.views.len();
        self.views.push(json!({
            "buffer": 0, "byteOffset": start, "byteLength": bytes, "target": target,
        }));
        Ok(index)
    }

    fn accessor(&mut self, accessor: Value) -> usize {
        self.accessors.push(accessor);
        self.accessors.len() - 1
    }

    /// The whole file.
    ///
    /// # Errors
    /// [`Error::internal`] where it has more than the 4 GiB that its format allows.
    pub fn finish(self) -> Result<Vec<u8>> {
        let mut json = serde_json::to_vec(&self.description())
            .map_err(|e| Error::internal("glTF cannot be encoded").caused_by(e))?;
        json.resize(json.len().next_multiple_of(4), b' ');
        let number = |n: usize| {
            u32::try_from(n)
                .map(u32::to_le_bytes)
                .map_err(|e| Error::internal("more than 4 GiB in a glTF file").caused_by(e))
        };
        let binary_chunk = if self.binary.is_empty() { 0 } else { 8 + self.binary.len() };
        let mut head = Vec::with_capacity(HEADER_BYTES + 8 + json.len() + 8);
        head.extend(b"glTF");
        head.extend(2_u32.to_le_bytes());
        head.extend(number(HEADER_BYTES + 8 + json.len() + binary_chunk)?);
        head.extend(number(json.len())?);
        head.extend(b"JSON");
        head.extend(json);
        let mut file = self.binary;
        if !file.is_empty() {
            head.extend(number(file.len())?);
            head.extend(b"BIN\0");
        }
        // In place: the numbers may take hundreds of megabytes.
        file.splice(0..0, head);
        Ok(file)
    }

    /// The JSON chunk. glTF allows no empty arrays.
    fn description(&self) -> Value {
        let mut root = json!({
            "name": "patient", "rotation": Y_UPWARDS, "scale": [METRE, METRE, METRE],
        });
        let children: Vec<usize> = (1..=self.nodes.len()).collect();
        if !children.is_empty() {
            root["children"] = json!(children);
        }
        let mut nodes = vec![root];
        nodes.extend(self.nodes.iter().cloned());
        let mut gltf = Map::new();
        gltf.insert(
            "asset".to_owned(),
            json!({"version": "2.0", "generator": "ahi-inference", "extras": {"space": "LPS", "unit": "mm"}}),
        );
        gltf.insert("scene".to_owned(), json!(0));
        gltf.insert("scenes".to_owned(), json!([{"nodes": [0]}]));
        gltf.insert("nodes".to_owned(), Value::Array(nodes));
        let lists = [
            ("meshes", &self.meshes),
            ("materials", &self.materials),
            ("accessors", &self.accessors),
            ("bufferViews", &self.views),
        ];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            gltf.insert(name.to_owned(), Value::Array(list.clone()));
        }
        if !self.binary.is_empty() {
            gltf.insert("buffers".to_owned(), json!([{"byteLength": self.binary.len()}]));
        }
        Value::Object(gltf)
    }
}

const HEADER_BYTES: usize = 12;
/// Leaves room for the description.
const LARGEST_BINARY: usize = u32::MAX as usize - (64 << 20);

fn floats(vectors: &[[f32; 3]]) -> impl Iterator<Item = [u8; 4]> {
    vectors.iter().flatten().map(|x| x.to_le_bytes())
}

/// The smallest and largest coordinates.
fn bounds(vertices: &[[f32; 3]]) -> ([f32; 3], [f32; 3]) {
    vertices.iter().fold(([f32::MAX; 3], [f32::MIN; 3]), |(low, high), vertex| {
        (
            std::array::from_fn(|i| low[i].min(vertex[i])),
            std::array::from_fn(|i| high[i].max(vertex[i])),
        )
    })
}

/// A component of sRGB (IEC 61966-2-1) to the linear light that glTF's factors are in.
fn linear(component: u8) -> f64 {
    let c = f64::from(component) / 255.0;
    let light = if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
    (light * 1e6).round() / 1e6
}
