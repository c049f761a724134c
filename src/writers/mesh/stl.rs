//! Binary STL: 80 bytes of text, the number of triangles, then 50 bytes per triangle.

use super::measure::twice_area;
use super::place::Placed;
use crate::error::{Error, Result};

/// It must not begin with "solid", which identifies the text format. 3D Slicer reads the axes from it;
/// other software ignores it.
const HEADER: &[u8] = b"ahi-inference SPACE=LPS UNIT=mm";
const HEADER_BYTES: usize = 80;
/// Normal, three corners, and two bytes without meaning.
const TRIANGLE_BYTES: usize = 50;

/// Builds a file mesh by mesh.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    triangles: u32,
}

impl Writer {
    /// Creates a file without triangles.
    pub fn new() -> Self {
        let mut bytes = HEADER.to_vec();
        bytes.resize(HEADER_BYTES, b' ');
        bytes.extend([0; 4]);
        Self { bytes, triangles: 0 }
    }

    /// Adds the triangles of a mesh.
    ///
    /// # Errors
    /// [`Error::internal`] if there are more than 32 bits can count.
    pub fn append(&mut self, mesh: &Placed) -> Result<()> {
        self.triangles = u32::try_from(mesh.triangles.len())
            .ok()
            .and_then(|more| self.triangles.checked_add(more))
            .ok_or_else(|| Error::internal("more than 2^32 triangles in an STL file"))?;
        self.bytes.reserve(mesh.triangles.len() * TRIANGLE_BYTES);
        for triangle in &mesh.triangles {
            let corners = triangle.map(|corner| mesh.vertices[corner as usize]);
            let [a, b, c] = corners;
            let mut record = [0; TRIANGLE_BYTES];
            let numbers =
                unit(twice_area(a, b, c)).into_iter().chain(corners.into_iter().flatten());
            for (place, number) in record.chunks_exact_mut(4).zip(numbers) {
                place.copy_from_slice(&number.to_le_bytes());
            }
            self.bytes.extend(record);
        }
        Ok(())
    }

    /// Returns the whole file.
    pub fn finish(mut self) -> Vec<u8> {
        if let Some(count) = self.bytes.get_mut(HEADER_BYTES..HEADER_BYTES + 4) {
            count.copy_from_slice(&self.triangles.to_le_bytes());
        }
        self.bytes
    }
}

fn unit(vector: [f32; 3]) -> [f32; 3] {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 { vector.map(|x| x / length) } else { [0.0; 3] }
}
