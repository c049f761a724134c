//! Tests of whole pictures of synthetic volumes.

use std::ops::Range;

use ndarray::Array3;

use super::*;
use crate::volume::{Affine, Geometry};

struct Map(Array3<u8>);

impl Labelled for Map {
    fn at(&self, [x, y, z]: [usize; 3], found: &mut dyn FnMut(usize)) {
        if let Some(segment) = self.0[[x, y, z]].checked_sub(1) {
            found(usize::from(segment));
        }
    }

    fn runs(&self, y: usize, z: usize, found: &mut dyn FnMut(usize, Range<usize>)) {
        for x in 0..self.0.dim().0 {
            self.at([x, y, z], &mut |segment| found(segment, x..x + 1));
        }
    }
}

const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];
const SEGMENTS: [Shown<'static>; 2] =
    [Shown { name: "Leber (größer)", color: RED }, Shown { name: "nodule", color: BLUE }];

/// Labels in patient coordinates, in a box of 64 × 48 × 40 mm: a large segment on the patient's right
/// in front, and a small one on the left behind, near the head.
fn label([right, front, head]: [f64; 3]) -> u8 {
    let near = |centre: [f64; 3], radius: f64| {
        let d = [right - centre[0], front - centre[1], head - centre[2]];
        d.iter().map(|x| x * x).sum::<f64>() <= radius * radius
    };
    match () {
        () if near([48.0, 34.0, 18.0], 10.0) => 1,
        () if near([14.0, 12.0, 18.5], 4.0) => 2,
        () => 0,
    }
}

/// The same body, scanned along other axes.
fn scene(columns: [[f64; 3]; 3], dims: [usize; 3], origin: [f64; 3]) -> (Geometry, Map) {
    let geometry = Geometry { dims, affine: Affine::from_columns(columns, origin) };
    let labels = Array3::from_shape_fn((dims[0], dims[1], dims[2]), |(x, y, z)| {
        label(geometry.affine.apply([x as f64, y as f64, z as f64]))
    });
    (geometry, Map(labels))
}

fn axial() -> (Geometry, Map) {
    scene([[-0.5, 0., 0.], [0., -0.5, 0.], [0., 0., 2.]], [128, 96, 20], [63.75, 47.75, 1.0])
}

fn draw_of(geometry: &Geometry, map: &Map, window: Option<Window>) -> Picture {
    draw(&Scene {
        geometry,
        image: &|[x, y, z]| (x + y + z) as f32,
        labels: map,
        extents: &extents(geometry.dims, SEGMENTS.len(), map),
        segments: &SEGMENTS,
        window,
        title: "a model 1.0",
    })
}

/// Returns the centre of the pixels of a colour within columns.
fn centre(
    picture: &Picture,
    color: [u8; 3],
    columns: Range<usize>,
    rows: Range<usize>,
) -> [f64; 2] {
    let width = usize::from(picture.width);
    let mut sum = [0.0; 3];
    for (at, pixel) in picture.rgb.chunks_exact(3).enumerate() {
        let (x, y) = (at % width, at / width);
        if pixel == color && columns.contains(&x) && rows.contains(&y) {
            sum = [sum[0] + x as f64, sum[1] + y as f64, sum[2] + 1.0];
        }
    }
    assert!(sum[2] > 10.0, "{color:?} is not there");
    [sum[0] / sum[2], sum[1] / sum[2]]
}

fn assert_near(found: [f64; 2], expected: [f64; 2]) {
    for i in 0..2 {
        assert!((found[i] - expected[i]).abs() < 3.0, "{found:?}, not {expected:?}");
    }
}

#[test]
fn segments_are_where_they_belong() {
    let (geometry, map) = axial();
    let picture = draw_of(&geometry, &map, None);
    assert!(usize::from(picture.width) * usize::from(picture.height) <= MOST_PIXELS);
    assert_eq!(picture.rgb.len(), usize::from(picture.width) * usize::from(picture.height) * 3);
    // Axial, of 64 × 48 mm: 388 × 291 pixels; right on the left, front above.
    let scale = 388.0 / 64.0;
    let panels = 24..347;
    let top = 24.0 + (323.0 - 291.0) / 2.0;
    let red = centre(&picture, RED, 8..396, panels.clone());
    assert_near(red, [8.0 + (64.0 - 48.0) * scale, top + (48.0 - 34.0) * scale]);
    let blue = centre(&picture, BLUE, 8..396, panels.clone());
    assert_near(blue, [8.0 + (64.0 - 14.0) * scale, top + (48.0 - 12.0) * scale]);
    // Coronal, of 64 × 40 mm: 388 × 243 pixels; the head above.
    let top = 24.0 + (323.0 - 243.0) / 2.0;
    let red = centre(&picture, RED, 404..792, panels.clone());
    assert_near(red, [404.0 + (64.0 - 48.0) * scale, top + (40.0 - 18.0) * scale]);
    // Sagittal, of 48 × 40 mm: 388 × 323 pixels; the front on the left.
    let scale = 388.0 / 48.0;
    let red = centre(&picture, RED, 800..1188, panels);
    assert_near(red, [800.0 + (48.0 - 34.0) * scale, 24.0 + (40.0 - 18.0) * scale]);
}

#[test]
fn the_scans_axes_do_not_matter() {
    let (geometry, map) = axial();
    let usual = draw_of(&geometry, &map, None);
    // Sagittal slices of 1 mm from left to right, their rows from the feet upwards.
    let (geometry, map) =
        scene([[0., 0.5, 0.], [0., 0., 0.5], [1., 0., 0.]], [96, 80, 64], [0.5, 0.25, 0.25]);
    let other = draw_of(&geometry, &map, None);
    assert_eq!((usual.width, usual.height), (other.width, other.height));
    for columns in [8..396, 404..792, 800..1188] {
        for color in [RED, BLUE] {
            let there = |picture: &Picture| {
                let width = usize::from(picture.width);
                let colors = picture.rgb.chunks_exact(3).enumerate();
                let mut found =
                    colors.filter(|(at, c)| *c == color && columns.contains(&(at % width)));
                found.any(|(at, _)| (24..347).contains(&(at / width)))
            };
            assert_eq!(there(&usual), there(&other));
            if there(&usual) {
                let [a, b] = [&usual, &other].map(|p| centre(p, color, columns.clone(), 24..347));
                assert_near(a, b);
            }
        }
    }
}

#[test]
fn one_slice_and_odd_shapes_have_pictures() {
    for dims in [[64, 64, 1], [1, 1, 1], [1, 700, 3], [2000, 2, 2], [3, 2000, 1]] {
        let (geometry, map) =
            scene([[-0.5, 0., 0.], [0., -0.5, 0.], [0., 0., 2.]], dims, [40.0, 40.0, 18.0]);
        let picture = draw_of(&geometry, &map, None);
        assert!(
            usize::from(picture.width) * usize::from(picture.height) <= MOST_PIXELS,
            "{dims:?}"
        );
        assert!(picture.png().unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
    }
}

#[test]
fn the_window_decides_the_greys() {
    let (geometry, map) = axial();
    let map = Map(Array3::zeros(map.0.raw_dim()));
    let brightness = |window| {
        let picture = draw_of(&geometry, &map, window);
        let width = usize::from(picture.width);
        let pixel = |x: usize, y: usize| picture.rgb[3 * (y * width + x)];
        [pixel(60, 120), pixel(340, 280)]
    };
    let window = |center| Window { center, width: 10.0, function: VoiFunction::LinearExact };
    assert_eq!(brightness(Some(window(-1000.0))), [255, 255]);
    assert_eq!(brightness(Some(window(1000.0))), [0, 0]);
    let [dark, light] = brightness(None);
    assert!(dark < 100 && light > 150, "{dark}, {light}");
}
