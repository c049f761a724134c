//! One plane of the volume at display size.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::scene::Scene;
use super::view::View;
use super::window::Window;

/// A plane sampled at the pixels of a panel.
pub(super) struct Panel {
    pub width: usize,
    pub height: usize,
    /// The image values, row by row.
    values: Vec<f32>,
    /// The pixels of each segment in the plane.
    masks: BTreeMap<usize, Vec<bool>>,
}

/// Opacity of a segment's fill colour.
const FILL: f32 = 0.25;
/// Limit on the samples along each axis whose mean is a pixel.
const MOST_SAMPLES: usize = 4;

impl Panel {
    /// Samples `view` at `width` by `height` pixels: the image by interpolation, the segments by the
    /// nearest voxel.
    pub fn sample(scene: &Scene, view: &View, width: usize, height: usize) -> Self {
        let rows: Vec<Vec<f32>> = (0..height)
            .into_par_iter()
            .map(|y| (0..width).map(|x| value(scene, view, [x, y], [width, height])).collect())
            .collect();
        let mut masks: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
        for y in 0..height {
            for x in 0..width {
                let [u, v] = position(view, [x as f64 + 0.5, y as f64 + 0.5], [width, height]);
                let voxel = voxel(scene, view, u.round(), v.round());
                scene.labels.at(voxel, &mut |segment| {
                    let mask = masks.entry(segment).or_insert_with(|| vec![false; width * height]);
                    mask[y * width + x] = true;
                });
            }
        }
        Self { width, height, values: rows.concat(), masks }
    }

    /// Returns the sampled image values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns the pixels as red, green and blue, from 0 to 1.
    pub fn colored(&self, scene: &Scene, window: &Window) -> Vec<[f32; 3]> {
        let mut pixels: Vec<[f32; 3]> =
            self.values.iter().map(|&value| [window.grey(value); 3]).collect();
        let area = |mask: &[bool]| mask.iter().filter(|inside| **inside).count();
        let mut order: Vec<(usize, &Vec<bool>)> =
            self.masks.iter().map(|(&segment, mask)| (segment, mask)).collect();
        order.sort_by_key(|(_, mask)| std::cmp::Reverse(area(mask)));
        for (segment, mask) in order {
            let Some(shown) = scene.segments.get(segment) else { continue };
            let color = shown.color.map(|c| f32::from(c) / 255.0);
            for (at, pixel) in pixels.iter_mut().enumerate().filter(|(at, _)| mask[*at]) {
                let share = if self.is_border(mask, at) { 1.0 } else { FILL };
                *pixel = std::array::from_fn(|i| pixel[i] + share * (color[i] - pixel[i]));
            }
        }
        pixels
    }

    /// Whether a pixel of a mask has a neighbour outside the mask.
    fn is_border(&self, mask: &[bool], at: usize) -> bool {
        let (x, y) = (at % self.width, at / self.width);
        (x > 0 && !mask[at - 1])
            || (x + 1 < self.width && !mask[at + 1])
            || (y > 0 && !mask[at - self.width])
            || (y + 1 < self.height && !mask[at + self.width])
    }
}

/// Converts the position of a pixel to voxel indices across and down.
fn position(view: &View, pixel: [f64; 2], size: [usize; 2]) -> [f64; 2] {
    let along = |at: f64, size: usize, voxels: usize| at / size as f64 * voxels as f64 - 0.5;
    [
        view.across.index(along(pixel[0], size[0], view.across.voxels)),
        view.down.index(along(pixel[1], size[1], view.down.voxels)),
    ]
}

/// Returns the voxel at indices across and down, clamped to the volume.
fn voxel(scene: &Scene, view: &View, across: f64, down: f64) -> [usize; 3] {
    let mut voxel = [0; 3];
    voxel[view.through] = view.slice;
    for (run, index) in [(&view.across, across), (&view.down, down)] {
        let last = scene.geometry.dims[run.axis].saturating_sub(1);
        voxel[run.axis] = (index.max(0.0) as usize).min(last);
    }
    voxel
}

/// Returns the image value at a pixel. For a pixel that covers several voxels, this is the mean of
/// several points, each interpolated linearly between four voxels.
fn value(scene: &Scene, view: &View, pixel: [usize; 2], size: [usize; 2]) -> f32 {
    let samples = |voxels: usize, size: usize| voxels.div_ceil(size.max(1)).clamp(1, MOST_SAMPLES);
    let [across, down] = [samples(view.across.voxels, size[0]), samples(view.down.voxels, size[1])];
    let within = |at: usize, of: usize| (at as f64 + 0.5) / of as f64;
    let mut sum = 0.0;
    for j in 0..down {
        for i in 0..across {
            let point = [pixel[0] as f64 + within(i, across), pixel[1] as f64 + within(j, down)];
            let [u, v] = position(view, point, size);
            let (u0, v0) = (u.floor(), v.floor());
            let (fu, fv) = ((u - u0) as f32, (v - v0) as f32);
            let at = |u: f64, v: f64| (scene.image)(voxel(scene, view, u, v));
            let above = at(u0, v0) * (1.0 - fu) + at(u0 + 1.0, v0) * fu;
            let below = at(u0, v0 + 1.0) * (1.0 - fu) + at(u0 + 1.0, v0 + 1.0) * fu;
            sum += above * (1.0 - fv) + below * fv;
        }
    }
    sum / (across * down) as f32
}
