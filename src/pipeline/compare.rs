//! Compares the results of running a network in two ways, such as another precision or another file of
//! it.
//!
//! Both models process the same images through the same steps. The second run executes both networks
//! side by side, so that their values are compared window by window and their times are measured in the
//! same period.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ndarray::{ArrayView5, Zip};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::compute::{image_of, preprocess};
use super::{Given, Job, Loaded, acquire, frames, images, plan_all};
use crate::cpu;
use crate::error::{Error, ErrorKind, Result};
use crate::inference::{Network, NetworkShape, Share, standard_layout};
use crate::postprocess::{Segmentation, Segmenter};
use crate::progress::Progress;
use crate::registry::{Lease, Model};
use crate::transforms::Image;

/// Compares the results of `job`'s model and of `candidate`, which belongs to the same package, on one
/// input.
///
/// The report contains `labelsEqual` (fraction of the voxels of the source's grid, over all segments),
/// `largestDifference` between the networks' values, the `dice` coefficient of each segment with its
/// voxel counts from both models, a description of what runs each network, and each network's
/// milliseconds per window.
///
/// # Errors
/// Propagates the errors of a request; [`ErrorKind::InvalidRequest`] if the series has several volumes
/// and none is named.
pub async fn compare(
    given: Given<'_>,
    job: Job,
    candidate: Lease<Model>,
) -> Result<Map<String, Value>> {
    let given = [given];
    let described = images::described(&given, &job.model).await?;
    let ordered = images::in_order(described, &job.model)?;
    let mut volumes = plan_all(ordered, &job).await?;
    let (Some(planned), true) = (volumes.pop(), volumes.is_empty()) else {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "the series holds several volumes; name one with --volume",
        ));
    };
    // Each run needs its own labels and windows. Memory for both is acquired at once: a second
    // acquisition could wait forever.
    let (holding, _) = acquire(&job, &planned, 2).await?;
    let mut loaded = Vec::with_capacity(planned.len());
    for (source, series, plan) in planned {
        let (volume, _) =
            frames::load(source, &series, &plan, &*job.progress, &holding, false).await?;
        loaded.push(Loaded { series, plan, origin: source.origin(), volume });
    }
    let work = move || {
        let _held = holding;
        of(&job.model, &candidate, loaded, &job.progress)
    };
    tokio::task::spawn_blocking(move || cpu::contained(work))
        .await
        .unwrap_or_else(|_| Err(Error::internal("the comparison was stopped from outside")))
}

fn of(
    reference: &Model,
    candidate: &Model,
    loaded: Vec<Loaded>,
    progress: &Arc<dyn Progress>,
) -> Result<Map<String, Value>> {
    let source = loaded
        .first()
        .map_or(1.0, |one| one.plan.geometry.affine.spacing().iter().product::<f64>());
    let images = loaded
        .into_iter()
        .map(|one| image_of(one.volume, &one.plan.geometry))
        .collect::<Result<Vec<_>>>()?;
    let image = preprocess(reference, images, &**progress)?;
    let run = |network: &dyn Network| segmentation(reference, &image, source, network, &**progress);
    let expected = run(&reference.network)?;
    let pair = Pair::of(&reference.network, &candidate.network)?;
    let found = run(&pair)?;
    let totals = pair.totals.into_inner().unwrap_or_else(PoisonError::into_inner);

    let mut report = Map::new();
    let mut say = |name: &str, value: Value| report.insert(name.to_owned(), value);
    say("model", json!(reference.name));
    say("reference", Value::Object(reference.network.describe()));
    say("candidate", Value::Object(candidate.network.describe()));
    let mut unequal = 0;
    let mut dice = Vec::with_capacity(reference.segments.len());
    for (position, segment) in reference.segments.iter().enumerate() {
        let counts = Counts::of(&expected, &found, position, segment.value);
        unequal += counts.reference + counts.candidate - 2 * counts.both;
        dice.push(json!({
            "label": segment.label,
            "dice": counts.dice(),
            "referenceVoxels": counts.reference,
            "candidateVoxels": counts.candidate,
        }));
    }
    let voxels = voxels(&expected);
    // A voxel with a different label is missing in one segment and extra in another, or in the
    // background.
    let differing = differing(&expected, &found).unwrap_or(unequal);
    say("voxels", json!(voxels));
    say("labelsEqual", json!(1.0 - differing as f64 / voxels.max(1) as f64));
    say("largestDifference", json!(totals.largest));
    say("segments", Value::from(dice));
    say("windows", json!(totals.windows));
    let millis = |seconds: f64| seconds * 1e3 / totals.windows.max(1) as f64;
    say("referenceMillisecondsPerWindow", json!(millis(totals.seconds[0])));
    say("candidateMillisecondsPerWindow", json!(millis(totals.seconds[1])));
    Ok(report)
}

fn segmentation(
    model: &Model,
    image: &Image,
    source: f64,
    network: &dyn Network,
    progress: &dyn Progress,
) -> Result<Segmentation> {
    let mut segmenter = Segmenter::new(model.postprocessing.clone(), &image.applied, image.dims())?
        .with_voxels(image.affine.spacing().iter().product(), source);
    let data = standard_layout(image.data.view())?;
    model.inferer.run(data.view(), network, &mut segmenter, progress)?;
    segmenter.finish()
}

/// Runs both networks; the result is the second one's.
struct Pair<'n> {
    reference: &'n dyn Network,
    candidate: &'n dyn Network,
    totals: Mutex<Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    windows: usize,
    largest: f32,
    seconds: [f64; 2],
}

impl<'n> Pair<'n> {
    fn of(reference: &'n dyn Network, candidate: &'n dyn Network) -> Result<Self> {
        if reference.shape() != candidate.shape() {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                "the networks take or give tensors of different shapes; export both in the same way",
            ));
        }
        Ok(Self { reference, candidate, totals: Mutex::default() })
    }
}

impl Network for Pair<'_> {
    fn shape(&self) -> NetworkShape {
        self.reference.shape()
    }

    fn batch(&self, _: usize) -> usize {
        1
    }

    fn run(
        &self,
        batch: ArrayView5<f32>,
        share: Share,
        take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
    ) -> Result<()> {
        let mut expected = None;
        let started = Instant::now();
        self.reference.run(batch, share, &mut |result| {
            expected = Some((started.elapsed().as_secs_f64(), result.to_owned()));
            Ok(())
        })?;
        let (reference, expected) =
            expected.ok_or_else(|| Error::internal("a network gave no result"))?;
        let started = Instant::now();
        self.candidate.run(batch, share, &mut |result| {
            let seconds = started.elapsed().as_secs_f64();
            if result.dim() != expected.dim() {
                return Err(Error::new(
                    ErrorKind::InvalidModel,
                    "the networks give results of different shapes",
                ));
            }
            // NaN counts as an infinite difference.
            let largest = Zip::from(&result).and(&expected).fold(0.0_f32, |most, a, b| {
                let difference = (a - b).abs();
                if difference.is_nan() { f32::INFINITY } else { most.max(difference) }
            });
            let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
            totals.windows += result.dim().0;
            totals.largest = totals.largest.max(largest);
            totals.seconds[0] += reference;
            totals.seconds[1] += seconds;
            drop(totals);
            take(result)
        })
    }

    fn judge(&self, failure: Error) -> Error {
        self.candidate.judge(failure)
    }
}

/// Voxel counts of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    reference: u64,
    candidate: u64,
    both: u64,
}

impl Counts {
    fn of(reference: &Segmentation, candidate: &Segmentation, position: usize, value: u16) -> Self {
        let dims = dims(reference);
        let [a, b] = [reference, candidate].map(|one| Members::of(one, position, value));
        let plane = |x: usize| {
            let mut counts = Self::default();
            for y in 0..dims[1] {
                for z in 0..dims[2] {
                    let (a, b) = (a.has([x, y, z]), b.has([x, y, z]));
                    counts.reference += u64::from(a);
                    counts.candidate += u64::from(b);
                    counts.both += u64::from(a && b);
                }
            }
            counts
        };
        let sum = |a: Self, b: Self| Self {
            reference: a.reference + b.reference,
            candidate: a.candidate + b.candidate,
            both: a.both + b.both,
        };
        (0..dims[0]).into_par_iter().map(plane).reduce(Self::default, sum)
    }

    /// Returns the Dice coefficient; 1 if neither has a voxel.
    fn dice(self) -> f64 {
        match self.reference + self.candidate {
            0 => 1.0,
            sum => 2.0 * self.both as f64 / sum as f64,
        }
    }
}

/// The voxels of one segment.
enum Members<'s> {
    Label(ndarray::ArrayView3<'s, u8>, u16),
    Mask(Option<ndarray::ArrayView3<'s, u8>>),
    Codes(ndarray::ArrayView3<'s, u16>, Vec<bool>),
}

impl<'s> Members<'s> {
    fn of(segmentation: &'s Segmentation, position: usize, value: u16) -> Self {
        match segmentation {
            Segmentation::Labels(labels) => Self::Label(labels.view(), value),
            Segmentation::Masks(masks) => Self::Mask(masks.outer_iter().nth(position)),
            Segmentation::Sets(sets) => {
                let has = sets.members().iter().map(|set| set.contains(&value)).collect();
                Self::Codes(sets.codes(), has)
            }
        }
    }

    fn has(&self, index: [usize; 3]) -> bool {
        match self {
            Self::Label(labels, value) => u16::from(labels[index]) == *value,
            Self::Mask(mask) => mask.is_some_and(|mask| mask[index] != 0),
            Self::Codes(codes, has) => has[usize::from(codes[index])],
        }
    }
}

fn dims(segmentation: &Segmentation) -> [usize; 3] {
    match segmentation {
        Segmentation::Labels(labels) => labels.dim().into(),
        Segmentation::Masks(masks) => {
            let (_, x, y, z) = masks.dim();
            [x, y, z]
        }
        Segmentation::Sets(sets) => sets.codes().dim().into(),
    }
}

fn voxels(segmentation: &Segmentation) -> u64 {
    dims(segmentation).iter().map(|&n| n as u64).product()
}

/// Counts the voxels with different labels, if each voxel has one label.
fn differing(reference: &Segmentation, candidate: &Segmentation) -> Option<u64> {
    let (Segmentation::Labels(a), Segmentation::Labels(b)) = (reference, candidate) else {
        return None;
    };
    Some(Zip::from(a).and(b).par_fold(|| 0, |sum, a, b| sum + u64::from(a != b), |a, b| a + b))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Array4, Array5};

    use super::*;

    #[test]
    fn segments_are_counted_in_every_form() {
        let labels = Array3::from_shape_fn((4, 3, 5), |(x, y, z)| ((x + y + z) % 3) as u8);
        let masks = |labels: &Array3<u8>| {
            Array4::from_shape_fn((2, 4, 3, 5), |(c, x, y, z)| {
                u8::from(usize::from(labels[[x, y, z]]) == c + 1)
            })
        };
        let mut other = labels.clone();
        other[[0, 0, 1]] = 2;
        other[[0, 0, 0]] = 1;
        let (a, b) = (Segmentation::Labels(labels.clone()), Segmentation::Labels(other.clone()));
        assert_eq!((differing(&a, &b), voxels(&a)), (Some(2), 60));
        let masked = Segmentation::Masks(masks(&other));
        assert_eq!(differing(&a, &masked), None);
        for (position, value) in [(0, 1), (1, 2)] {
            let counts = Counts::of(&a, &b, position, value);
            assert_eq!(Counts::of(&a, &masked, position, value), counts);
            assert_eq!(Counts::of(&a, &a, position, value).dice(), 1.0);
            assert!(counts.dice() < 1.0 && counts.dice() > 0.9);
        }
        assert_eq!(Counts::of(&a, &b, 0, 77).dice(), 1.0, "in neither");
    }

    /// A network that multiplies by a number.
    struct Times(f32);

    impl Network for Times {
        fn shape(&self) -> NetworkShape {
            NetworkShape::default()
        }

        fn run(
            &self,
            batch: ArrayView5<f32>,
            _: Share,
            take: &mut dyn FnMut(ArrayView5<f32>) -> Result<()>,
        ) -> Result<()> {
            take((&batch * self.0).view())
        }
    }

    #[test]
    fn the_largest_difference_counts_and_the_candidate_s_result_goes_on() {
        let pair = Pair::of(&Times(1.0), &Times(1.5)).unwrap();
        let batch = Array5::from_shape_fn((1, 1, 2, 2, 2), |(_, _, x, y, z)| (x + y + z) as f32);
        let mut found = 0.0;
        pair.run(batch.view(), Share::All, &mut |result| {
            found = result.sum();
            Ok(())
        })
        .unwrap();
        assert_eq!(found, 18.0);
        let totals = pair.totals.into_inner().unwrap();
        assert_eq!((totals.windows, totals.largest), (1, 1.5));
        let nothing = Pair::of(&Times(1.0), &Times(f32::NAN)).unwrap();
        nothing.run(batch.view(), Share::All, &mut |_| Ok(())).unwrap();
        assert_eq!(nothing.totals.into_inner().unwrap().largest, f32::INFINITY);
    }
}
