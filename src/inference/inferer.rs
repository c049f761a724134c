//! A bundle's `inferer`: how an image runs through the network.

use ndarray::{ArrayView4, ArrayView5, Axis};

use super::importance::BlendMode;
use super::network::{Network, NetworkShape, Share, WIDEST_LAYER};
use super::plane_sink::{PlaneSink, WindowStats};
use super::sliding_window::{SlidingWindowInferer, WindowPadding};
use crate::bundle::{Args, Component};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;

/// One of MONAI's inferers. All are implemented as sliding windows: over the volume, over the slices
/// across one axis, or with one window as large as the image.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferer {
    window: SlidingWindowInferer,
    /// The axis whose slices a 2D network gets.
    slices_across: Option<usize>,
}

impl Inferer {
    /// Creates the inferer from a bundle's `SlidingWindowInferer`, `SliceInferer` or `SimpleInferer`.
    /// It runs on volumes or, if `plane_across` names an axis, on planes across it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] with the JSON path of any other inferer or an unsupported argument.
    pub fn from_component(component: &Component, plane_across: Option<usize>) -> Result<Self> {
        let mut args = Args::new(component);
        let inferer = match (component.target.as_str(), plane_across) {
            // The adaptive variant only differs in its fallback when the result does not fit in GPU
            // memory. Here no result is held as a whole.
            ("SlidingWindowInferer" | "SlidingWindowInfererAdapt", None) => {
                Self::from(SlidingWindowInferer::from_args(&mut args)?)
            }
            ("SlidingWindowInferer" | "SlidingWindowInfererAdapt", Some(axis)) => {
                Self::planes(&mut args, axis)?
            }
            ("SliceInferer", None) => Self::slices(&mut args)?,
            ("SimpleInferer", _) => Self {
                window: SlidingWindowInferer {
                    roi_size: [None; 3],
                    sw_batch_size: 1,
                    overlap: [0.0; 3],
                    mode: BlendMode::Constant,
                    padding: WindowPadding::Constant(0.0),
                    reuse_constant: true,
                },
                slices_across: plane_across,
            },
            ("SliceInferer", Some(_)) => {
                return Err(Error::new(
                    ErrorKind::InvalidModel,
                    format!("{}: SqueezeDimd leaves no volume to take slices of", component.path),
                )
                .with("path", component.path.as_str()));
            }
            (other, _) => {
                return Err(Error::new(
                    ErrorKind::InvalidModel,
                    format!("{}: inferer {other} is not supported", component.path),
                )
                .with("path", component.path.as_str())
                .with("target", other));
            }
        };
        args.finish()?;
        Ok(inferer)
    }

    /// `monai.inferers.SlidingWindowInferer` on 2D images.
    fn planes(args: &mut Args, axis: usize) -> Result<Self> {
        let mut window = SlidingWindowInferer::from_args(args)?;
        // Arguments given per axis refer to the two axes of the plane.
        for name in ["roi_size", "overlap", "sigma_scale"] {
            if args.raw(name).and_then(|v| v.as_array()).is_some_and(|list| list.len() != 2) {
                return Err(args.invalid(name, "one number, or one for each axis of the plane"));
            }
        }
        let spread = |[a, b, _]: [f64; 3]| {
            let mut values = [a, b].into_iter();
            std::array::from_fn(|i| if i == axis { 0.0 } else { values.next().unwrap_or(0.0) })
        };
        let [a, b, _] = window.roi_size;
        let mut sizes = [a, b].into_iter();
        window.roi_size =
            std::array::from_fn(|i| if i == axis { Some(1) } else { sizes.next().flatten() });
        window.overlap = spread(window.overlap);
        if let BlendMode::Gaussian { sigma_scale } = &mut window.mode {
            *sigma_scale = spread(*sigma_scale);
            // The window is one voxel deep here: its weight is 1 for any sigma.
            sigma_scale[axis] = 1.0;
        }
        Ok(Self { window, slices_across: Some(axis) })
    }

    /// `monai.inferers.SliceInferer`: a window one voxel deep along `spatial_dim`.
    fn slices(args: &mut Args) -> Result<Self> {
        let mut window = SlidingWindowInferer::from_args(args)?;
        let axis = match args.whole_numbers("spatial_dim")?.unwrap_or(vec![0])[..] {
            [axis @ 0..=2] => axis as usize,
            _ => return Err(args.invalid("spatial_dim", "0, 1 or 2")),
        };
        let Some(&[a, b]) = args.whole_numbers("roi_size")?.as_deref() else {
            return Err(args.invalid("roi_size", "two whole numbers"));
        };
        let mut sizes = [a, b].map(|n| usize::try_from(n).ok().filter(|n| *n > 0)).into_iter();
        window.roi_size =
            std::array::from_fn(|i| if i == axis { Some(1) } else { sizes.next().flatten() });
        Ok(Self { window, slices_across: Some(axis) })
    }

    /// Sets whether windows of a constant value run through the network every time.
    #[must_use]
    pub fn with_every_window(mut self, every: bool) -> Self {
        self.window.reuse_constant = !every;
        self
    }

    /// Returns the size of a window along the axes where the inferer or the network fixes it.
    pub fn window(&self, shape: NetworkShape) -> [Option<usize>; 3] {
        let spatial = match self.slices_across {
            Some(axis) => across(shape, axis).spatial,
            None => shape.spatial,
        };
        std::array::from_fn(|a| self.window.roi_size[a].or(spatial[a]))
    }

    /// Returns the input size of the network (X, Y, Z; 1 along the last axis for slices), if it is
    /// fixed along all axes.
    pub fn fixed_window(&self, shape: NetworkShape) -> Option<[usize; 3]> {
        let [x, y, z] = self.window(shape);
        let sizes = match self.slices_across {
            Some(0) => [y, z, Some(1)],
            Some(1) => [x, z, Some(1)],
            Some(_) => [x, y, Some(1)],
            None => [x, y, z],
        };
        let [x, y, z] = sizes;
        Some([x?, y?, z?])
    }

    /// Explains why the inferer does not match a network of this shape; `None` if it does.
    pub fn mismatch(&self, shape: NetworkShape) -> Option<String> {
        let kind = |planar: bool| if planar { "slices" } else { "volumes" };
        let planar = self.slices_across.is_some();
        if shape.planar != planar {
            let (network, inferer) = (kind(shape.planar), kind(planar));
            return Some(format!("takes {network}, the bundle's inferer gives it {inferer}"));
        }
        let takes = self.slices_across.map_or(shape, |axis| across(shape, axis)).spatial;
        let gives = self.window.roi_size;
        let differs =
            |axis: usize| takes[axis].is_some_and(|n| gives[axis].is_some_and(|m| m != n));
        let sizes = |window: [Option<usize>; 3]| {
            let along = |n: Option<usize>| n.map_or("any".to_owned(), |n| n.to_string());
            let axes = (0..3).filter(|axis| Some(*axis) != self.slices_across);
            axes.map(|axis| along(window[axis])).collect::<Vec<_>>().join(" × ")
        };
        (0..3).any(differs).then(|| {
            let (takes, gives) = (sizes(takes), sizes(gives));
            format!(
                "takes windows of {takes}, the bundle's inferer gives it {gives} (inferer#roi_size)"
            )
        })
    }

    /// Whether the window size follows from the image along all axes.
    pub fn takes_images_whole(&self) -> bool {
        let along =
            |axis: usize| Some(axis) == self.slices_across || self.window.roi_size[axis].is_none();
        (0..3).all(along)
    }

    /// Returns the number of windows in a batch (`sw_batch_size`).
    pub fn batch_size(&self) -> usize {
        self.window.sw_batch_size
    }

    /// Returns the size of the smallest image that has `windows` windows. `otherwise` is the size along
    /// axes that neither the inferer nor the network fixes.
    pub fn batch_extent(
        &self,
        shape: NetworkShape,
        windows: usize,
        otherwise: usize,
    ) -> [usize; 3] {
        let mut size = self.window(shape).map(|fixed| fixed.unwrap_or(otherwise));
        // A network with a fixed batch size gets a full batch however few windows there are.
        let windows = if shape.batch.is_some() { 1 } else { windows };
        let along = self.slices_across.unwrap_or(0);
        if self.window.roi_size[along].is_some() {
            let share = 1.0 - self.window.overlap[along];
            let step = ((size[along] as f64 * share) as usize).max(1);
            size[along] += step * windows.saturating_sub(1);
        }
        size
    }

    /// Returns the bytes that [`run`](Self::run) holds at the same time, besides an image of `channels`
    /// and `dims` in standard layout, for a network of `classes`. The network's own memory is accounted
    /// to its model. The exception is a window size that neither the inferer nor the network fixes:
    /// then the buffers of a window as large as this image are counted here.
    pub fn forecast(
        &self,
        channels: usize,
        dims: [usize; 3],
        classes: usize,
        network: &dyn Network,
    ) -> u64 {
        let held = match self.slices_across {
            Some(axis) => self.window.forecast(channels, dims, classes, &Slices { network, axis }),
            None => self.window.forecast(channels, dims, classes, network),
        };
        let window = self.window(network.shape());
        if window.iter().all(Option::is_some) {
            return held;
        }
        let voxels = window
            .iter()
            .zip(dims)
            .fold(1, |product: u64, (fixed, n)| product.saturating_mul(fixed.unwrap_or(n) as u64));
        let layers = voxels.saturating_mul(WIDEST_LAYER * size_of::<f32>() as u64);
        held.saturating_add(layers.saturating_mul(self.batch_size() as u64))
    }

    /// Runs `network` over `image` (axes C, X, Y, Z) and passes the blended result to `sink`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] if a 2D network is combined with an inferer for volumes, or the
    /// reverse.
    pub fn run(
        &self,
        image: ArrayView4<f32>,
        network: &dyn Network,
        sink: &mut dyn PlaneSink,
        progress: &dyn Progress,
    ) -> Result<WindowStats> {
        if let Some(why) = self.mismatch(network.shape()) {
            return Err(Error::new(ErrorKind::InvalidModel, format!("models/model.onnx {why}")));
        }
        match self.slices_across {
            Some(axis) => self.window.run(image, &Slices { network, axis }, sink, progress),
            None => self.window.run(image, network, sink, progress),
        }
    }
}

impl From<SlidingWindowInferer> for Inferer {
    fn from(window: SlidingWindowInferer) -> Self {
        Self { window, slices_across: None }
    }
}

/// Adapts a 2D network to windows that are one voxel deep along `axis`.
struct Slices<'a> {
    network: &'a dyn Network,
    axis: usize,
}

/// Inserts `axis` between the two axes of the slices.
fn across(shape: NetworkShape, axis: usize) -> NetworkShape {
    let [a, b, _] = shape.spatial;
    let mut sizes = [a, b].into_iter();
    let spatial = std::array::from_fn(|i| if i == axis { Some(1) } else { sizes.next().flatten() });
    NetworkShape { spatial, planar: false, ..shape }
}

impl Network for Slices<'_> {
    fn shape(&self) -> NetworkShape {
        across(self.network.shape(), self.axis)
    }

    fn workers(&self) -> usize {
        self.network.workers()
    }

    fn batch(&self, most: usize) -> usize {
        self.network.batch(most)
    }

    fn run(
        &self,
        batch: ArrayView5<f32>,
        share: Share,
        take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
    ) -> Result<()> {
        // Moving an axis of length 1 does not change the memory layout.
        let axis = Axis(self.axis + 2);
        let slices = batch.index_axis_move(axis, 0).insert_axis(Axis(4));
        self.network.run(slices, share, &mut |result| {
            take(result.index_axis_move(Axis(4), 0).insert_axis(axis))
        })
    }

    fn judge(&self, failure: Error) -> Error {
        self.network.judge(failure)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array4, ArrayView3};
    use serde_json::json;

    use super::*;
    use crate::progress::Silent;

    /// Adds to each voxel its position in the slice.
    struct Positions {
        planar: bool,
    }

    impl Network for Positions {
        fn shape(&self) -> NetworkShape {
            NetworkShape {
                batch: None,
                input_channels: Some(1),
                spatial: [None, None, self.planar.then_some(1)],
                output_channels: Some(1),
                planar: self.planar,
            }
        }

        fn run(
            &self,
            batch: ArrayView5<f32>,
            _: Share,
            take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
        ) -> Result<()> {
            assert!(batch.is_standard_layout());
            let mut result = batch.to_owned();
            result.indexed_iter_mut().for_each(|((_, _, a, b, c), v)| {
                *v += (100 * a + 10 * b + c) as f32;
            });
            take(result.view())
        }
    }

    #[derive(Default)]
    struct Collect(Array4<f32>);

    impl PlaneSink for Collect {
        fn begin(&mut self, classes: usize, [x, y, z]: [usize; 3]) -> Result<()> {
            self.0 = Array4::zeros((classes, x, y, z));
            Ok(())
        }

        fn planes(&mut self, x: usize, y: usize, planes: &[ArrayView3<f32>]) -> Result<()> {
            for (i, plane) in planes.iter().enumerate() {
                self.0.slice_mut(ndarray::s![.., x + i, y..y + plane.dim().1, ..]).assign(plane);
            }
            Ok(())
        }
    }

    fn inferer(target: &str, args: serde_json::Value) -> Result<Inferer> {
        let args = args.as_object().unwrap().clone();
        Inferer::from_component(
            &Component { target: target.to_owned(), args, path: "inferer".to_owned() },
            None,
        )
    }

    fn run(inferer: &Inferer, planar: bool) -> Result<Array4<f32>> {
        let image = Array4::from_shape_fn((1, 4, 5, 6), |(_, x, y, z)| (x + y + z) as f32 * 1e-3);
        let mut sink = Collect::default();
        inferer.run(image.view(), &Positions { planar }, &mut sink, &Silent)?;
        Ok(sink.0)
    }

    #[test]
    fn slices_lie_across_their_axis() {
        for (axis, roi) in [(0, [5, 6]), (1, [4, 6]), (2, [4, 5])] {
            let inferer =
                inferer("SliceInferer", json!({"roi_size": roi, "spatial_dim": axis})).unwrap();
            for ((_, x, y, z), &v) in run(&inferer, true).unwrap().indexed_iter() {
                let [a, b] = [[y, z], [x, z], [x, y]][axis];
                let expected = (100 * a + 10 * b) as f32 + (x + y + z) as f32 * 1e-3;
                assert!((v - expected).abs() < 1e-4, "{v} {expected}");
            }
        }
    }

    #[test]
    fn a_batch_extent_fills_one_batch() {
        for (target, args, planar, windows) in [
            ("SlidingWindowInferer", json!({"roi_size": [4, 5, 6], "sw_batch_size": 3}), false, 3),
            (
                "SlidingWindowInferer",
                json!({"roi_size": [5, 5, 5], "overlap": 0.5, "sw_batch_size": 4}),
                false,
                4,
            ),
            ("SlidingWindowInferer", json!({"roi_size": [-1, 5, 5], "sw_batch_size": 4}), false, 1),
            (
                "SliceInferer",
                json!({"roi_size": [4, 4], "spatial_dim": 2, "sw_batch_size": 5}),
                true,
                5,
            ),
            ("SimpleInferer", json!({}), false, 1),
        ] {
            let inferer = inferer(target, args.clone()).unwrap();
            let network = Positions { planar };
            let [x, y, z] = inferer.batch_extent(network.shape(), inferer.batch_size(), 7);
            let image = Array4::zeros((1, x, y, z));
            let mut sink = Collect::default();
            let stats = inferer.run(image.view(), &network, &mut sink, &Silent).unwrap();
            assert_eq!(stats.windows, windows, "{target} {args}");
        }
    }

    #[test]
    fn simple_is_the_whole_image_at_once() {
        let inferer = inferer("SimpleInferer", json!({})).unwrap();
        for ((_, x, y, z), &v) in run(&inferer, false).unwrap().indexed_iter() {
            let expected = (100 * x + 10 * y + z) as f32 + (x + y + z) as f32 * 1e-3;
            assert!((v - expected).abs() < 1e-4);
        }
    }

    #[test]
    fn a_squeezed_image_goes_through_as_planes() {
        for axis in 0..3 {
            let mut dims = [9, 9, 9];
            dims[axis] = 1;
            let image = Array4::from_elem((1, dims[0], dims[1], dims[2]), 0.5f32);
            for (target, args) in [
                ("SimpleInferer", json!({})),
                ("SlidingWindowInferer", json!({"roi_size": [9, 9], "mode": "gaussian"})),
                ("SlidingWindowInferer", json!({"roi_size": -1, "overlap": [0.5, 0.25]})),
            ] {
                let component = Component {
                    target: target.to_owned(),
                    args: args.as_object().unwrap().clone(),
                    path: "inferer".to_owned(),
                };
                let inferer = Inferer::from_component(&component, Some(axis)).unwrap();
                let mut sink = Collect::default();
                let planar = Positions { planar: true };
                inferer.run(image.view(), &planar, &mut sink, &Silent).unwrap();
                for ((_, x, y, z), &v) in sink.0.indexed_iter() {
                    let [a, b] = [[y, z], [x, z], [x, y]][axis];
                    assert!((v - (100 * a + 10 * b) as f32 - 0.5).abs() < 1e-3, "{v}");
                }
            }
        }
    }

    #[test]
    fn networks_and_inferers_that_do_not_fit_are_refused() {
        let slices = inferer("SliceInferer", json!({"roi_size": [4, 4]})).unwrap();
        let whole = inferer("SimpleInferer", json!({})).unwrap();
        for (inferer, planar) in [(slices, false), (whole, true)] {
            assert_eq!(run(&inferer, planar).unwrap_err().kind(), ErrorKind::InvalidModel);
        }
        assert!(inferer("SliceInferer", json!({"roi_size": [4, 4, 4]})).is_err());
        assert!(inferer("SliceInferer", json!({"roi_size": [4, 4], "spatial_dim": 3})).is_err());
        assert!(inferer("PatchInferer", json!({})).is_err());
    }
}
