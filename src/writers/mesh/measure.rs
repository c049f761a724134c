//! Volume, area and normals of closed surfaces.

use super::surface::Surface;

/// Returns the enclosed volume, in cubes of the vertices' unit; negative if triangles face inwards.
pub(super) fn volume(surface: &Surface) -> f64 {
    // Relative to a nearby point, so that the summands are not much larger than their sum.
    let origin = surface.vertices.first().map_or([0.0; 3], |v| v.map(f64::from));
    let corner = |index: u32| {
        let vertex = surface.vertices[index as usize];
        std::array::from_fn(|i| f64::from(vertex[i]) - origin[i])
    };
    let six: f64 = surface
        .triangles
        .iter()
        .map(|triangle| {
            let [a, b, c]: [[f64; 3]; 3] = triangle.map(corner);
            let normal = cross(b, c);
            a[0] * normal[0] + a[1] * normal[1] + a[2] * normal[2]
        })
        .sum();
    six / 6.0
}

/// Returns the vertices' unit normals, outwards, weighted by the triangles' areas; zero if those cancel
/// out. Also returns the volume gained per unit of length when every vertex moves along its normal.
pub(super) fn normals(surface: &Surface) -> (Vec<[f32; 3]>, f64) {
    let mut normals = vec![[0.0_f32; 3]; surface.vertices.len()];
    for triangle in &surface.triangles {
        let [a, b, c] = triangle.map(|corner| surface.vertices[corner as usize]);
        let twice = twice_area(a, b, c);
        for &corner in triangle {
            let sum = &mut normals[corner as usize];
            for i in 0..3 {
                sum[i] += twice[i];
            }
        }
    }
    let mut growth = 0.0;
    for normal in &mut normals {
        let length = normal.iter().map(|x| x * x).sum::<f32>().sqrt();
        growth += f64::from(length) / 6.0;
        if length > 0.0 {
            *normal = normal.map(|x| x / length);
        }
    }
    (normals, growth)
}

/// Returns the area of a triangle.
pub(super) fn area([a, b, c]: [[f32; 3]; 3]) -> f32 {
    twice_area(a, b, c).iter().map(|x| x * x).sum::<f32>().sqrt() / 2.0
}

/// Returns a vector along a triangle's normal, with twice its area as length.
pub(super) fn twice_area(a: [f32; 3], b: [f32; 3], c: [f32; 3]) -> [f32; 3] {
    let (u, v): ([f32; 3], [f32; 3]) =
        (std::array::from_fn(|i| b[i] - a[i]), std::array::from_fn(|i| c[i] - a[i]));
    [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}
