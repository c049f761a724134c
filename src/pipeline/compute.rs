//! The CPU part of one input: preprocessing, network, postprocessing.

use ndarray::{Array4, ArrayView3, Axis};

use super::timings::Timings;
use crate::error::Result;
use crate::inference::{PlaneSink, WindowStats};
use crate::postprocess::{Segmentation, Segmenter};
use crate::progress::{Progress, Stage};
use crate::registry::Model;
use crate::transforms::Image;
use crate::volume::{Geometry, Volume};

/// A segmentation on the source's grid, and what making it took.
pub struct Computed {
    /// The result.
    pub segmentation: Segmentation,
    /// The sliding window's statistics.
    pub windows: WindowStats,
    /// Size of the image as the network saw it.
    pub network_dims: [usize; 3],
}

/// The image as the first transform gets it.
pub fn image_of(volume: Volume, geometry: &Geometry) -> Result<Image> {
    Ok(Image::new(volume.into_physical()?.insert_axis(Axis(0)), geometry.affine))
}

/// Runs the model's preprocessing.
pub fn preprocess(model: &Model, mut image: Image, progress: &dyn Progress) -> Result<Image> {
    for (done, transform) in model.preprocessing.iter().enumerate() {
        progress.check()?;
        image = transform.apply(image)?;
        progress.advance(Stage::Preprocess, done + 1, model.preprocessing.len());
    }
    Ok(image)
}

/// From a decoded volume to a segmentation.
pub fn segment(
    model: &Model,
    volume: Volume,
    geometry: &Geometry,
    timings: &mut Timings,
    progress: &dyn Progress,
) -> Result<Computed> {
    let image = preprocess(model, image_of(volume, geometry)?, progress)?;
    timings.end(Stage::Preprocess);
    let network_dims = image.dims();
    let Image { data, applied, .. } = image;
    let segmenter = Segmenter::new(model.postprocessing.clone(), &applied, network_dims)?;
    let mut sink = Timed { segmenter, seconds: 0.0 };
    let windows = run_network(model, &data, &mut sink, progress)?;
    drop(data);
    timings.end(Stage::Inference);
    timings.add("network", windows.network_seconds);
    let started = std::time::Instant::now();
    let segmentation = sink.segmenter.finish()?;
    timings.add(Stage::Postprocess.name(), sink.seconds + started.elapsed().as_secs_f64());
    timings.skip();
    Ok(Computed { segmentation, windows, network_dims })
}

fn run_network(
    model: &Model,
    data: &Array4<f32>,
    sink: &mut Timed,
    progress: &dyn Progress,
) -> Result<WindowStats> {
    model.inferer.run(data.view(), &model.network, sink, progress)
}

/// Tells the time spent behind the network from that in it.
struct Timed {
    segmenter: Segmenter,
    seconds: f64,
}

impl PlaneSink for Timed {
    fn begin(&mut self, classes: usize, dims: [usize; 3]) -> Result<()> {
        self.segmenter.begin(classes, dims)
    }

    fn planes(&mut self, x: usize, planes: &[ArrayView3<f32>]) -> Result<()> {
        let started = std::time::Instant::now();
        let result = self.segmenter.planes(x, planes);
        self.seconds += started.elapsed().as_secs_f64();
        result
    }
}
