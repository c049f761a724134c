//! Binary glTF 2.0 (Khronos, ISO/IEC 12113): a JSON chunk with the description and a binary chunk with
//! the numbers.
//!
//! Each segment has a node, a mesh and a material named after its label; the node's `extras` contain
//! its number. The root node transforms the vertices from LPS+ millimetres to glTF's metres with +Y up
//! and +Z to the front: X stays (left), the direction of the head becomes Y, and the front, which is -Y
//! in LPS+, becomes Z.

use serde_json::{Map, Value, json};

use super::place::Placed;
use crate::error::{Error, Result};

/// One segment's mesh.
pub(super) struct Part<'a> {
    /// Its Segment Number.
    pub number: u16,
    /// Its display name.
    pub name: &'a str,
    /// Its display colour, sRGB.
    pub color: [u8; 3],
    /// Its mesh.
    pub mesh: &'a Placed,
}

/// A quarter turn about X, from Z up to Y up, as a quaternion (x, y, z, w).
const Y_UPWARDS: [f64; 4] =
    [-std::f64::consts::FRAC_1_SQRT_2, 0.0, 0.0, std::f64::consts::FRAC_1_SQRT_2];
/// Metres per millimetre.
const METRE: f64 = 0.001;
/// Targets of buffer views.
const ARRAY_BUFFER: u32 = 34962;
const ELEMENT_ARRAY_BUFFER: u32 = 34963;
/// Component types.
const UNSIGNED_INT: u32 = 5125;
const FLOAT: u32 = 5126;

/// Builds a file mesh by mesh.
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
    /// Creates a file without meshes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mesh.
    ///
    /// # Errors
    /// [`Error::internal`] if the file would exceed the format's limit of 4 GiB.
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

    /// Adds numbers of four bytes each, so that all are aligned.
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

    /// Returns the whole file.
    ///
    /// # Errors
    /// [`Error::internal`] if it exceeds the format's limit of 4 GiB.
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
        // In place, because the numbers may take hundreds of megabytes.
        file.splice(0..0, head);
        Ok(file)
    }

    /// Returns the JSON chunk. glTF allows no empty arrays.
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

/// Returns the smallest and largest coordinates.
fn bounds(vertices: &[[f32; 3]]) -> ([f32; 3], [f32; 3]) {
    vertices.iter().fold(([f32::MAX; 3], [f32::MIN; 3]), |(low, high), vertex| {
        (
            std::array::from_fn(|i| low[i].min(vertex[i])),
            std::array::from_fn(|i| high[i].max(vertex[i])),
        )
    })
}

/// Converts an sRGB component (IEC 61966-2-1) to linear light, as used by glTF's factors.
fn linear(component: u8) -> f64 {
    let c = f64::from(component) / 255.0;
    let light = if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
    (light * 1e6).round() / 1e6
}
