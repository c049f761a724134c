//! Measures each stage in isolation, on a CT phantom of 256 × 256 × 160 voxels.
//!
//! `cargo bench` prints the times. `scripts/bench.sh` times whole requests, and `scripts/compare.sh` the
//! alternatives that users would run instead.

use std::sync::{Arc, LazyLock};

use ahi_inference::bundle::BundleConfig;
use ahi_inference::codec::{self, FrameFormat, Samples, encode_htj2k};
use ahi_inference::dicom::Series;
use ahi_inference::error::Result;
use ahi_inference::inference::sliding_window::{BlendMode, WindowPadding};
use ahi_inference::inference::{Network, NetworkShape, PlaneSink, Share, SlidingWindowInferer};
use ahi_inference::phantom::PhantomArgs;
use ahi_inference::pipeline::{Holding, compute, frames};
use ahi_inference::policy::{Policy, Wanted};
use ahi_inference::postprocess::{PostPlan, Segmentation, Segmenter};
use ahi_inference::progress::Silent;
use ahi_inference::source::ImageSource;
use ahi_inference::source::dicom_files::DicomFiles;
use ahi_inference::transforms::{Image, Preprocessing};
use ahi_inference::volume::{Affine, Geometry, Physical, Plan, Volume, plan};
use ahi_inference::writers::rtstruct::{self, RtStructOptions, RtStructRequest};
use ahi_inference::writers::seg::{
    self, Algorithm, Code, Identity, SegOptions, SegRequest, SegmentDescription, SourceSlice,
};
use ahi_inference::writers::{Voxels, nifti, statistics};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use ndarray::{Array3, Array4, Array5, ArrayView3, ArrayView5, ShapeBuilder};
use rayon::prelude::*;

const HTJ2K: &str = "1.2.840.10008.1.2.4.201";

fn main() {
    divan::main();
}

/// Inputs of the stages.
struct Case {
    series: Arc<Series>,
    plan: Arc<Plan>,
    /// Decoded slices, in the volume's order.
    slices: Vec<Samples>,
    format: FrameFormat,
    config: BundleConfig,
}

static CASE: LazyLock<Case> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("phantom");
    let phantom =
        PhantomArgs { out, seed: 7, size: 256, slices: 160, spacing: 1.25, slice_spacing: 1.5 };
    phantom.write().expect("the phantom");
    let source = DicomFiles::new(phantom.out.join("dicom"), None);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let series = Arc::new(runtime.block_on(source.series()).expect("the series"));
    let plan =
        Arc::new(plan(&series, &Policy::default(), Wanted::Any).expect("the plan").remove(0));
    let format = FrameFormat::from_dataset(&series.instances[0].dataset).expect("the format");
    let (volume, _) = runtime
        .block_on(frames::load(&source, &series, &plan, &Silent, &Holding::nothing(), false))
        .expect("the frames");
    let voxels = volume.into_physical().expect("the volume");
    // Stored values equal physical values except for the CT offset.
    let slices = voxels
        .axis_iter(ndarray::Axis(2))
        .map(|slice| Samples::I16(slice.t().iter().map(|&v| v as i16).collect()))
        .collect();
    let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/model/ct_phantom");
    let config = BundleConfig::read(bundle.as_ref()).expect("the bundle");
    Case { series, plan, slices, format, config }
});

impl Case {
    fn image(&self) -> Image {
        let mut volume = Volume::new(self.plan.clone()).expect("the volume's memory");
        let places = volume.places();
        self.slices.par_iter().enumerate().for_each(|(index, slice)| {
            places.put(index, slice.clone()).expect("a slice of its size");
        });
        drop(places);
        compute::image_of(volume, &self.plan.geometry).expect("the image")
    }

    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::new(&self.config.preprocessing, &["image".to_owned()])
            .expect("the bundle's transforms")
    }

    fn preprocessed(&self) -> Image {
        self.preprocessing().run(vec![self.image()], |_| Ok(())).expect("preprocessing")
    }

    /// Returns a label map with four spherical organs.
    fn labels(&self) -> Array3<u8> {
        let [nx, ny, nz] = self.plan.geometry.dims;
        let centre = |i: usize| [nx * (1 + i % 2) / 3, ny * (1 + i / 2) / 3, nz / 2];
        let mut labels = Array3::zeros((nz, ny, nx));
        for ((z, y, x), label) in labels.indexed_iter_mut() {
            let inside = |i: &usize| {
                let c = centre(*i);
                x.abs_diff(c[0]).pow(2) + y.abs_diff(c[1]).pow(2) + z.abs_diff(c[2]).pow(2) < 1200
            };
            *label = (0..4).find(inside).map_or(0, |i| i as u8 + 1);
        }
        // Axes (X, Y, Z), X running fastest.
        labels.reversed_axes()
    }
}

#[divan::bench]
fn decode_htj2k_frame(bencher: Bencher) {
    let case = &*CASE;
    let frame = encode_htj2k(&case.slices[80], &case.format).expect("encoding");
    bencher
        .counter(BytesCount::new(case.format.pixels() * 2))
        .bench(|| codec::decode(HTJ2K, &frame, &case.format).expect("decoding"));
}

#[divan::bench]
fn rescale_into_a_volume(bencher: Bencher) {
    let case = &*CASE;
    bencher.counter(ItemsCount::new(case.plan.geometry.voxels())).bench_local(|| case.image());
}

#[divan::bench]
fn preprocess(bencher: Bencher) {
    let case = &*CASE;
    let preprocessing = case.preprocessing();
    bencher
        .counter(ItemsCount::new(case.plan.geometry.voxels()))
        .with_inputs(|| vec![case.image()])
        .bench_local_values(|images| preprocessing.run(images, |_| Ok(())).expect("preprocessing"));
}

/// A network that costs nothing, so that only gathering and blending are measured.
struct Nothing(Array5<f32>);

impl Network for Nothing {
    fn shape(&self) -> NetworkShape {
        NetworkShape {
            batch: Some(1),
            input_channels: Some(1),
            output_channels: Some(self.0.dim().1),
            ..NetworkShape::default()
        }
    }

    fn run(
        &self,
        _: ArrayView5<f32>,
        _: Share,
        take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
    ) -> Result<()> {
        take(self.0.view())
    }
}

struct Discard;

impl PlaneSink for Discard {
    fn begin(&mut self, _: usize, _: [usize; 3]) -> Result<()> {
        Ok(())
    }

    fn planes(&mut self, _: usize, _: usize, planes: &[ArrayView3<f32>]) -> Result<()> {
        divan::black_box(planes);
        Ok(())
    }
}

/// Windows of 96³ that overlap by half, with 2 and with 24 classes.
#[divan::bench(args = [2, 24])]
fn gather_and_blend(bencher: Bencher, classes: usize) {
    let network = Nothing(Array5::from_elem((1, classes, 96, 96, 96), 0.5));
    let inferer = SlidingWindowInferer {
        roi_size: [Some(96); 3],
        sw_batch_size: 1,
        overlap: [0.5; 3],
        mode: BlendMode::Gaussian { sigma_scale: [0.125; 3] },
        padding: WindowPadding::Constant(0.0),
        reuse_constant: false,
    };
    let image = Array4::from_elem((1, 192, 192, 160), 0.5);
    bencher.counter(ItemsCount::new(classes * 192 * 192 * 160)).bench_local(|| {
        inferer.run(image.view(), &network, &mut Discard, &Silent).expect("blending")
    });
}

/// Activation, inversion and argmax as configured in the bundle.
#[divan::bench]
fn postprocess(bencher: Bencher) {
    let case = &*CASE;
    let post = PostPlan::new(&case.config.postprocessing).expect("the bundle's transforms");
    let image = case.preprocessed();
    let [nx, ny, nz] = image.dims();
    let value = |(c, x, y, z)| ((x * 7 + y * 5 + z * 3 + c * 11) % 19) as f32 * 0.2 - 2.0;
    // Plane by plane, each with all classes.
    let values = Array4::from_shape_fn((nx, 5, ny, nz), |(x, c, y, z)| value((c, x, y, z)));
    bencher.counter(ItemsCount::new(case.plan.geometry.voxels())).bench_local(
        || -> Segmentation {
            let mut segmenter =
                Segmenter::new(post.clone(), &image.applied, image.dims()).expect("the engine");
            segmenter.begin(5, image.dims()).expect("to begin");
            for (x, plane) in values.outer_iter().enumerate() {
                segmenter.planes(x, 0, &[plane]).expect("a plane");
            }
            segmenter.finish().expect("the segmentation")
        },
    );
}

fn source_slices() -> Vec<SourceSlice<'static>> {
    CASE.series.instances.iter().map(|instance| SourceSlice { instance, frame: 0 }).collect()
}

#[divan::bench]
fn write_dicom_seg(bencher: Bencher) {
    let labels = CASE.labels();
    let request = SegRequest {
        voxels: Voxels::Labels(labels.view()),
        slices: &source_slices(),
        segments: &organs(4),
        algorithm: &Algorithm::new("bench", "1"),
        identity: &Identity::fresh(),
        options: &SegOptions::default(),
    };
    bencher
        .counter(ItemsCount::new(labels.len()))
        .bench_local(|| seg::write(&request).expect("the object"));
}

/// Describes the first `count` labels of a label map.
fn organs(count: u16) -> Vec<SegmentDescription> {
    let organ = |value| SegmentDescription {
        value,
        label: format!("Organ {value}"),
        category: Code::sct("123037004", "Anatomical Structure"),
        property_type: Code::sct("113343008", "Organ"),
        type_modifier: None,
        anatomic_region: None,
        color: None,
    };
    (1..=count).map(organ).collect()
}

/// All segments of a body CT: 105 organs with ragged edges. Values are 16-bit integers, or 32-bit floats as in
/// PET.
#[divan::bench(args = ["whole values", "real values"])]
fn measure_105_segments(bencher: Bencher, values: &str) {
    const DIMS: [usize; 3] = [512, 512, 300];
    let shape = (DIMS[0], DIMS[1], DIMS[2]).f();
    // Ellipsoids on a lattice of 7 × 5 × 3 within the body.
    let labels = Array3::from_shape_fn(shape, |(x, y, z)| {
        let from =
            |i: usize, side: usize, axis: f32| (i % side) as f32 / axis - side as f32 / axis / 2.0;
        let ragged = (x * 3 + y * 5 + z * 7) % 11;
        let away =
            from(x, 73, 33.0).powi(2) + from(y, 102, 45.0).powi(2) + from(z, 100, 46.0).powi(2);
        let body = from(x, 512, 220.0).powi(2) + from(y, 512, 160.0).powi(2) < 1.0;
        let organ = z / 100 * 35 + (y / 102).min(4) * 7 + (x / 73).min(6);
        if body && away + ragged as f32 * 0.015 < 1.0 { organ as u8 + 1 } else { 0 }
    });
    let value = |(x, y, z): (usize, usize, usize)| 900 + ((x * 37 + y * 101 + z * 53) % 701) as u16;
    let physical = match values {
        "real values" => {
            Physical::Real(Array3::from_shape_fn(shape, |at| f32::from(value(at)) * 0.73))
        }
        _ => Physical::Whole { voxels: Array3::from_shape_fn(shape, value), low: -1024 },
    };
    let geometry = Geometry { dims: DIMS, affine: Affine::IDENTITY };
    let segments = organs(105);
    bencher.counter(ItemsCount::new(labels.len())).bench_local(|| {
        let voxels = Voxels::Labels(labels.view());
        statistics::measure(&voxels, &segments, &physical, &geometry).expect("the statistics")
    });
}

#[divan::bench]
fn write_rtstruct(bencher: Bencher) {
    let labels = CASE.labels();
    let request = RtStructRequest {
        voxels: &Voxels::Labels(labels.view()),
        slices: &source_slices(),
        segments: &organs(4),
        algorithm: &Algorithm::new("bench", "1"),
        identity: &Identity::fresh(),
        options: &RtStructOptions::default(),
    };
    bencher
        .counter(ItemsCount::new(labels.len()))
        .bench_local(|| rtstruct::write(&request).expect("the object"));
}

#[divan::bench]
fn write_nifti(bencher: Bencher) {
    let case = &*CASE;
    let labels = case.labels();
    bencher.counter(ItemsCount::new(labels.len())).bench_local(|| {
        nifti::write(labels.view(), &case.plan.geometry.affine.0).expect("the file")
    });
}
