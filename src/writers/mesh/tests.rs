//! Tests of whole meshes, from random masks and known shapes.

use std::collections::HashMap;

use ndarray::Array3;
use proptest::prelude::*;

use super::grid::MaskGrid;
use super::surface::Surface;
use super::*;
use crate::volume::Geometry;

fn surface(mask: &Array3<u8>) -> Surface {
    extract::extract(&MaskGrid::new(mask.view(), |v| *v != 0)).unwrap()
}

fn smoothed(mask: &Array3<u8>) -> Surface {
    let mut surface = surface(mask);
    smooth::smooth(&mut surface);
    surface
}

/// Asserts that every edge belongs to two triangles, which traverse it in opposite directions.
fn assert_closed(triangles: &[[u32; 3]]) {
    let mut uses: HashMap<[u32; 2], usize> = HashMap::new();
    for &[a, b, c] in triangles {
        assert!(a != b && b != c && c != a);
        for edge in [[a, b], [b, c], [c, a]] {
            *uses.entry(edge).or_default() += 1;
        }
    }
    for (&[a, b], &count) in &uses {
        assert_eq!(count, 1, "{a} to {b}");
        assert_eq!(uses.get(&[b, a]), Some(&1), "{b} to {a}");
    }
}

/// Asserts that the triangles around each vertex form one fan.
fn assert_manifold(surface: &Surface) {
    let mut fans: Vec<HashMap<u32, u32>> = vec![HashMap::new(); surface.vertices.len()];
    for &[a, b, c] in &surface.triangles {
        for [at, from, to] in [[a, b, c], [b, c, a], [c, a, b]] {
            fans[at as usize].insert(from, to);
        }
    }
    for fan in fans {
        let first = *fan.keys().next().expect("every vertex is used");
        let mut at = fan[&first];
        let mut steps = 1;
        while at != first {
            at = fan[&at];
            steps += 1;
        }
        assert_eq!(steps, fan.len());
    }
}

fn assert_no_slivers(surface: &Surface) {
    for triangle in &surface.triangles {
        let area = measure::area(triangle.map(|corner| surface.vertices[corner as usize]));
        assert!(area >= 0.001, "{area}");
    }
}

fn ball(n: usize, radius: f64) -> Array3<u8> {
    let middle = (n as f64 - 1.0) / 2.0;
    Array3::from_shape_fn((n, n, n), |(x, y, z)| {
        let squared: f64 = [x, y, z].iter().map(|&i| (i as f64 - middle).powi(2)).sum();
        u8::from(squared <= radius * radius)
    })
}

fn masks() -> impl Strategy<Value = Array3<u8>> {
    (1..9_usize, 1..9_usize, 1..9_usize, 1..10_u8).prop_flat_map(|(x, y, z, share)| {
        prop::collection::vec(0..10_u8, x * y * z).prop_map(move |values| {
            let inside = values.iter().map(|&value| u8::from(value < share)).collect();
            Array3::from_shape_vec((x, y, z), inside).unwrap()
        })
    })
}

proptest! {
    #[test]
    fn any_mask_gives_closed_surfaces(mask in masks()) {
        let raw = surface(&mask);
        let grid = MaskGrid::new(mask.view(), |v| *v != 0);
        prop_assert_eq!(raw.vertices.len() as u64, extract::crossings(&grid));
        prop_assert_eq!(raw.voxels, mask.iter().map(|&v| u64::from(v)).sum::<u64>());
        assert_closed(&raw.triangles);
        assert_manifold(&raw);
        assert_no_slivers(&raw);
        prop_assert!(raw.voxels == 0 || measure::volume(&raw) > 0.0);
    }

    #[test]
    fn smoothing_spoils_no_surface(mask in masks()) {
        let raw = surface(&mask);
        let mut smooth = raw.clone();
        smooth::smooth(&mut smooth);
        prop_assert_eq!(&smooth.triangles, &raw.triangles);
        assert_no_slivers(&smooth);
        for (now, before) in smooth.vertices.iter().zip(&raw.vertices) {
            let way = (0..3).map(|i| (now[i] - before[i]).powi(2)).sum::<f32>().sqrt();
            prop_assert!(way < 0.43, "{}", way);
        }
        let mut places: Vec<[u32; 3]> = smooth.vertices.iter().map(|v| v.map(f32::to_bits)).collect();
        places.sort_unstable();
        places.dedup();
        prop_assert_eq!(places.len(), smooth.vertices.len());
    }
}

#[test]
fn the_volume_is_that_of_the_voxels() {
    let cases = [
        ("ball", ball(24, 10.3)),
        ("small ball", ball(9, 3.1)),
        ("box", Array3::from_elem((7, 5, 9), 1)),
        ("sheet", Array3::from_elem((20, 30, 1), 1)),
        ("wire", Array3::from_elem((120, 1, 1), 1)),
        ("voxel", Array3::from_elem((1, 1, 1), 1)),
        ("shell", ball(24, 10.3) - ball(24, 6.2)),
        // A staircase one voxel thick.
        ("stairs", Array3::from_shape_fn((40, 20, 20), |(x, _, z)| u8::from(x / 2 == z))),
    ];
    for (name, mask) in cases {
        let surface = smoothed(&mask);
        let voxels = surface.voxels as f64;
        let share = measure::volume(&surface) / voxels;
        assert!((share - 1.0).abs() < 0.002, "{name}: {share}");
        assert_closed(&surface.triangles);
    }
}

#[test]
fn a_ball_becomes_smooth() {
    let radius = 14.2;
    let mask = ball(32, radius);
    let deviation = |surface: &Surface| {
        let middle = 15.5_f32;
        let radii: Vec<f32> = surface
            .vertices
            .iter()
            .map(|v| v.iter().map(|x| (x - middle).powi(2)).sum::<f32>().sqrt())
            .collect();
        let mean = radii.iter().sum::<f32>() / radii.len() as f32;
        (radii.iter().map(|r| (r - mean).powi(2)).sum::<f32>() / radii.len() as f32).sqrt()
    };
    let (rough, smooth) = (deviation(&surface(&mask)), deviation(&smoothed(&mask)));
    assert!(smooth < rough / 2.0, "{smooth} in place of {rough}");
}

#[test]
fn meshes_face_outwards_in_axes_of_either_hand() {
    let mask = ball(12, 4.3);
    for sign in [1.0, -1.0] {
        let affine = Affine::from_columns(
            [[0.0, 2.0, 0.0], [0.7, 0.0, 0.1], [0.0, 0.0, sign * 3.0]],
            [-100.0, 50.0, 300.0],
        );
        let shape = Shape {
            number: 1,
            name: "ball",
            color: [255, 0, 0],
            grid: MaskGrid::new(mask.view(), |v| *v != 0),
            offset: [10, 20, 30],
        };
        let placed = mesh(&shape, &affine, 1).unwrap();
        let voxel = 2.0 * 0.7 * 3.0;
        let voxels = mask.iter().map(|&v| f64::from(v)).sum::<f64>();
        let surface =
            Surface { vertices: placed.vertices.clone(), triangles: placed.triangles, voxels: 0 };
        let share = measure::volume(&surface) / (voxels * voxel);
        assert!((share - 1.0).abs() < 0.002, "{share}");
        // The centre of the ball, in LPS.
        let [x, y, z] = affine.apply([15.5, 25.5, 35.5]);
        let centre = [-x, -y, z];
        for i in 0..3 {
            let of_axis = |pick: fn(f32, f32) -> f32| {
                placed.vertices.iter().map(|v| v[i]).reduce(pick).unwrap()
            };
            let middle = f64::from(of_axis(f32::min) + of_axis(f32::max)) / 2.0;
            assert!((middle - centre[i]).abs() < 0.05, "{i}: {middle}, {}", centre[i]);
        }
        for (vertex, normal) in placed.vertices.iter().zip(&placed.normals) {
            let outwards: f64 =
                (0..3).map(|i| (f64::from(vertex[i]) - centre[i]) * f64::from(normal[i])).sum();
            assert!(outwards > 0.0);
        }
    }
}

#[test]
fn what_is_too_large_becomes_coarser() {
    // Every second voxel, like a chessboard: the largest possible surface of a mask.
    let mask = Array3::from_shape_fn((20, 20, 20), |(x, y, z)| ((x + y + z) % 2) as u8);
    let shape = |mask| Shape {
        number: 3,
        name: "noise",
        color: [1, 2, 3],
        grid: MaskGrid::new(mask, |v: &u8| *v != 0),
        offset: [0; 3],
    };
    let shapes = [shape(mask.view())];
    assert_eq!(factor(&shapes, 24_000), 1);
    assert_eq!(factor(&shapes, 5_000), 2);
    let affine =
        Affine::from_columns([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]], [0.0; 3]);
    // At half resolution, it is a box of full blocks, as large as all voxels together.
    let placed = mesh(&shapes[0], &affine, 2).unwrap();
    let reach = |i: usize| {
        let along = placed.vertices.iter().map(|v| v[i]);
        (along.clone().fold(f32::MAX, f32::min), along.fold(f32::MIN, f32::max))
    };
    for (i, (low, high)) in [(0, (-39.0, 1.0)), (1, (-39.0, 1.0)), (2, (-1.0, 39.0))] {
        let (from, to) = reach(i);
        assert!((from - low).abs() < 1.0 && (to - high).abs() < 1.0, "{i}: {from} to {to}");
    }
}

#[test]
fn coordinates_beyond_single_precision_are_refused() {
    let geometry = |columns: [[f64; 3]; 3], origin| Geometry {
        dims: [512, 512, 300],
        affine: Affine::from_columns(columns, origin),
    };
    let cube = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    assert!(check(&geometry(cube, [3e3, 0.0, 0.0])).is_ok());
    assert!(check(&geometry(cube, [3e6, 0.0, 0.0])).is_err());
    assert!(check(&geometry(cube.map(|c| c.map(|x| x * 1e-9)), [1.0, 0.0, 0.0])).is_err());
    assert!(check(&geometry(cube, [f64::NAN, 0.0, 0.0])).is_err());
}

#[test]
fn files_hold_the_segments_that_have_voxels() {
    let (one, none) = (ball(9, 3.0), Array3::<u8>::zeros((4, 4, 4)));
    let shape = |number, name, mask| Shape {
        number,
        name,
        color: [255, 128, 0],
        grid: MaskGrid::new(mask, |v: &u8| *v != 0),
        offset: [0; 3],
    };
    let shapes = [
        shape(1, "Leber (größer)", one.view()),
        shape(2, "nothing", none.view()),
        shape(3, "again", one.view()),
    ];
    let formats = Formats { stl: true, glb: true };
    let files = write(&shapes, &Affine::IDENTITY, 100_000, formats).unwrap();
    assert_eq!(files.coarsened, None);
    let triangles = surface(&one).triangles.len();
    let stl = files.stl.unwrap();
    assert!(!stl.starts_with(b"solid"));
    assert_eq!(stl.len(), 84 + 50 * 2 * triangles);
    assert_eq!(stl[80..84], (2 * triangles as u32).to_le_bytes());

    let glb = files.glb.unwrap();
    let number = |at: usize| u32::from_le_bytes(glb[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((&glb[..4], number(4), number(8)), (&b"glTF"[..], 2, glb.len()));
    let json: serde_json::Value = serde_json::from_slice(&glb[20..20 + number(12)]).unwrap();
    let names: Vec<&str> =
        json["nodes"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["patient", "Leber (größer)", "again"]);
    assert_eq!(json["nodes"][2]["extras"]["segmentNumber"], 3);
    assert_eq!(json["buffers"][0]["byteLength"], glb.len() - 28 - number(12));

    // A file without meshes is valid, too.
    let files = write(&shapes[1..2], &Affine::IDENTITY, 100_000, formats).unwrap();
    assert_eq!(files.stl.unwrap()[80..], [0; 4]);
    let glb = files.glb.unwrap();
    assert_eq!(u32::from_le_bytes(glb[8..12].try_into().unwrap()) as usize, glb.len());
}

/// STL readers merge vertices at equal positions: two bodies that share some would no longer be closed.
#[test]
fn neighbours_share_no_vertex() {
    let near = |[x, y, z]: [usize; 3], centre: [f64; 3], radius: f64| {
        let d = [x as f64 - centre[0], y as f64 - centre[1], z as f64 - centre[2]];
        d.iter().map(|x| x * x).sum::<f64>() <= radius * radius
    };
    let labels = Array3::from_shape_fn((40, 30, 24), |(x, y, z)| match [x, y, z] {
        at if near(at, [14.0, 15.0, 12.0], 9.3) => 1_u8,
        at if near(at, [20.0, 14.0, 11.0], 9.7) => 2,
        [30..38, 4..9, 3..9] => 3,
        [30..38, 9..16, 3..9] => 4,
        [30, 20, 20] => 5,
        [31, 20, 20] => 6,
        _ => 0,
    });
    let shapes: Vec<_> = (1..=6_u16)
        .map(|number| Shape {
            number,
            name: "one of them",
            color: [0; 3],
            grid: MaskGrid::new(labels.view(), move |v| u16::from(*v) == number),
            offset: [0; 3],
        })
        .collect();
    let mut places: Vec<[u32; 3]> = shapes
        .iter()
        .flat_map(|shape| mesh(shape, &Affine::IDENTITY, 1).unwrap().vertices)
        .map(|vertex| vertex.map(f32::to_bits))
        .collect();
    let all = places.len();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), all);
}
