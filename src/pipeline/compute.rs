//! The CPU part of one input: preprocessing, network, postprocessing.

use ndarray::{Array4, ArrayView3, Axis};

use super::timings::Timings;
use crate::error::{Error, Result};
use crate::inference::{PlaneSink, WindowStats, standard_layout};
use crate::memory::keep;
use crate::postprocess::{Segmentation, Segmenter};
use crate::progress::{Progress, Stage};
use crate::registry::Model;
use crate::traces::count;
use crate::transforms::{Image, stack};
use crate::volume::{Geometry, Physical, Volume};

/// A segmentation on the source's grid, and statistics of the run.
pub struct Computed {
    /// The result.
    pub segmentation: Segmentation,
    /// The values of the first image, for measurements.
    pub physical: Physical,
    /// The sliding window's statistics.
    pub windows: WindowStats,
    /// Size of the network's input image.
    pub network_dims: [usize; 3],
}

impl Computed {
    /// Keeps the large buffers for the next request.
    pub fn recycle(self) {
        self.segmentation.recycle();
        self.physical.recycle();
    }
}

/// Creates the image for the first transform.
pub fn image_of(volume: Volume, geometry: &Geometry) -> Result<Image> {
    Ok(Image::new(volume.into_physical()?.insert_axis(Axis(0)), geometry.affine))
}

/// Runs the model's preprocessing on the images of one input, in the order of
/// [`Model::images`].
pub fn preprocess(model: &Model, images: Vec<Image>, progress: &dyn Progress) -> Result<Image> {
    let images = match (&model.preprocessing.keys[..], images.len()) {
        // Several images under one key are its channels, as when MONAI's LoadImaged loads a list.
        ([_], 2..) => vec![stack(images, &model.images, "the images of one input")?],
        _ => images,
    };
    progress.check()?;
    let steps = model.preprocessing.len();
    model.preprocessing.run(images, |done| {
        progress.advance(Stage::Preprocess, done, steps);
        progress.check()
    })
}

/// Segments decoded volumes, in the order of [`Model::images`], on the grid of the first, which is
/// [`measured`](Volume::measured).
pub fn segment(
    model: &Model,
    mut volumes: Vec<(Volume, Geometry)>,
    timings: &mut Timings,
    progress: &dyn Progress,
) -> Result<Computed> {
    // MONAI multiplies the lengths of the affine's columns, even if they are not orthogonal.
    let source = volumes
        .first()
        .map_or(1.0, |(_, geometry)| geometry.affine.spacing().iter().product::<f64>());
    timings.begin(Stage::Preprocess);
    let kept = volumes.first_mut().and_then(|(volume, _)| volume.take_kept());
    let images = volumes
        .into_iter()
        .map(|(volume, geometry)| image_of(volume, &geometry))
        .collect::<Result<Vec<_>>>()?;
    let first = images.first().ok_or_else(|| Error::internal("an input of no image"))?;
    let physical = match kept {
        Some(kept) => kept,
        None => Physical::keep(first.data.index_axis(Axis(0), 0))?,
    };
    let image = preprocess(model, images, progress)?;
    timings.end(Stage::Preprocess);
    timings.begin(Stage::Inference);
    let network_dims = image.dims();
    let Image { data, affine, applied } = image;
    let segmenter = Segmenter::new(model.postprocessing.clone(), &applied, network_dims)?
        .with_voxels(affine.spacing().iter().product(), source);
    // Here, so that the original image is released before the network runs.
    let data = match data.is_standard_layout() {
        true => data,
        false => {
            let copy = standard_layout(data.view())?.into_owned();
            keep(data.into_raw_vec_and_offset().0);
            copy
        }
    };
    let mut sink = Timed { segmenter, seconds: 0.0 };
    let windows = run_network(model, &data, &mut sink, progress)?;
    keep(data.into_raw_vec_and_offset().0);
    timings.set("windows", count(windows.windows));
    timings.set("network_seconds", windows.network_seconds);
    timings.end(Stage::Inference);
    timings.begin(Stage::Postprocess);
    timings.add("network", windows.network_seconds);
    let started = std::time::Instant::now();
    progress.advance(Stage::Postprocess, 0, 1);
    let segmentation = sink.segmenter.finish()?;
    progress.advance(Stage::Postprocess, 1, 1);
    timings.add(Stage::Postprocess.name(), sink.seconds + started.elapsed().as_secs_f64());
    timings.skip();
    Ok(Computed { segmentation, physical, windows, network_dims })
}

fn run_network(
    model: &Model,
    data: &Array4<f32>,
    sink: &mut Timed,
    progress: &dyn Progress,
) -> Result<WindowStats> {
    model.inferer.run(data.view(), &model.network, sink, progress)
}

/// Measures the time spent in postprocessing separately from the network's.
struct Timed {
    segmenter: Segmenter,
    seconds: f64,
}

impl PlaneSink for Timed {
    fn begin(&mut self, classes: usize, dims: [usize; 3]) -> Result<()> {
        self.segmenter.begin(classes, dims)
    }

    fn planes(&mut self, x: usize, y: usize, planes: &[ArrayView3<f32>]) -> Result<()> {
        let started = std::time::Instant::now();
        let result = self.segmenter.planes(x, y, planes);
        self.seconds += started.elapsed().as_secs_f64();
        result
    }
}
