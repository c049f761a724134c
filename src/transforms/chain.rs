//! A bundle's complete preprocessing: takes images by key and returns one image for the network.
//!
//! Most bundles load one image. Those that load several process each by its key until `ConcatItemsd`
//! turns them into channels; `ResampleToMatchd` resamples one to another's grid.

use std::collections::BTreeMap;

use ndarray::{Array4, Axis, concatenate};
use serde_json::Value;

use super::extent;
use super::squeeze::Dimensions;
use super::{
    Applied, Extent, Forecast, Image, Interpolation, PaddingMode, Resample, Transform, build,
};
use crate::bundle::{Args, Component};
use crate::error::{Error, ErrorKind, Result};

/// Arguments for which dictionary transforms take one value per key.
const BY_KEY: [&str; 6] =
    ["mode", "padding_mode", "align_corners", "dtype", "scale_extent", "channel_dim"];

/// Tolerance for the corners of equal grids, in millimetres.
const SAME_GRID: f64 = 1e-2;

/// The preprocessing of a bundle.
#[derive(Debug)]
pub struct Preprocessing {
    /// Keys of the images that are loaded, in order.
    pub keys: Vec<String>,
    steps: Vec<Step>,
    /// The key of the image that the network gets.
    result: String,
    /// The spatial axis that `SqueezeDimd` removed: images are planes across it.
    pub plane_across: Option<usize>,
}

#[derive(Debug)]
enum Step {
    /// One transform for each of its keys.
    Each(Vec<(String, Box<dyn Transform>)>),
    /// `ConcatItemsd`: joins `keys`, in order, as channels of `name`.
    Concat { keys: Vec<String>, name: String, path: String },
    /// `ResampleToMatchd`: resamples `keys` to the grid of `reference`.
    Match { keys: Vec<String>, reference: String, resample: Resample },
}

impl Preprocessing {
    /// Builds the preprocessing of the images `keys` from a bundle's components.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] with the JSON path of anything unsupported.
    pub fn new(components: &[Component], keys: &[String]) -> Result<Self> {
        let mut known: Vec<String> = keys.to_vec();
        let mut steps = Vec::new();
        let mut dimensions = Dimensions::default();
        for component in components {
            dimensions.follow(component, covers(component, &known))?;
            steps.extend(step(component, &mut known)?);
        }
        let result = match &known[..] {
            [only] => only.clone(),
            // The image that MONAI's evaluator passes to the network (`prepare_batch`,
            // `CommonKeys.IMAGE`).
            several if several.iter().any(|key| key == "image") => "image".to_owned(),
            several => {
                return Err(Error::new(
                    ErrorKind::InvalidModel,
                    format!(
                        "preprocessing: leaves {} images ({}) and none of them is `image`, which \
                         the network gets",
                        several.len(),
                        several.join(", ")
                    ),
                ));
            }
        };
        Ok(Self { keys: keys.to_vec(), steps, result, plane_across: dimensions.end()? })
    }

    /// Returns the number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether images stay unchanged.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Predicts what [`run`](Self::run) would make of images of these extents, and its peak memory: all
    /// images present at each step, and what the step allocates besides them.
    ///
    /// # Errors
    /// Propagates the errors of running it, as far as extents alone are at fault.
    pub fn forecast(&self, images: Vec<Extent>) -> Result<Forecast> {
        self.check_count(images.len())?;
        let mut images: BTreeMap<String, Extent> = self.keys.iter().cloned().zip(images).collect();
        let held = |images: &BTreeMap<String, Extent>| {
            images.values().fold(0, |sum: u64, image| sum.saturating_add(image.bytes()))
        };
        let mut peak = held(&images);
        for step in &self.steps {
            let before = held(&images);
            let beside = step.forecast(&mut images)?;
            peak = peak.max(before.saturating_add(beside)).max(held(&images));
        }
        let result = images.remove(self.result.as_str()).ok_or_else(|| lost(&self.result))?;
        Ok(Forecast { result, peak })
    }

    fn check_count(&self, images: usize) -> Result<()> {
        if images == self.keys.len() {
            return Ok(());
        }
        Err(Error::internal(format!("{images} images for the keys {}", self.keys.join(", "))))
    }

    /// Runs every step on `images`, one for each of [`keys`](Self::keys). `done` is called after each
    /// step and may cancel the rest.
    pub fn run(
        &self,
        images: Vec<Image>,
        mut done: impl FnMut(usize) -> Result<()>,
    ) -> Result<Image> {
        self.check_count(images.len())?;
        let mut images: BTreeMap<String, Image> = self.keys.iter().cloned().zip(images).collect();
        for (index, step) in self.steps.iter().enumerate() {
            step.run(&mut images)?;
            done(index + 1)?;
        }
        images.remove(self.result.as_str()).ok_or_else(|| lost(&self.result))
    }
}

fn lost(key: &str) -> Error {
    Error::internal(format!("there is no image {key}"))
}

/// Returns the step for a component; `None` if it has nothing to do. `known` are the current images.
fn step(component: &Component, known: &mut Vec<String>) -> Result<Option<Step>> {
    let mut args = Args::new(component);
    if component.target == "DeleteItemsd" {
        let gone = args.raw("keys").cloned().unwrap_or_default();
        let is_gone = |key: &str| match &gone {
            Value::Array(list) => list.iter().any(|k| k.as_str() == Some(key)),
            one => one.as_str() == Some(key),
        };
        known.retain(|key| !is_gone(key));
        return Ok(None);
    }
    let (keys, places) = component_keys(&mut args, known)?;
    match component.target.as_str() {
        "ConcatItemsd" if keys.len() > 1 => concat(component, keys, known).map(Some),
        "ResampleToMatchd" => matched(component, keys).map(Some),
        _ => {
            let mut each = Vec::new();
            for (key, &place) in keys.iter().zip(&places.at) {
                let alone = for_key(component, place, places.of);
                if let Some(transform) = build(&alone)? {
                    each.push((key.clone(), transform));
                }
            }
            Ok((!each.is_empty()).then_some(Step::Each(each)))
        }
    }
}

/// Describes what one component by itself would do, if its arguments do not say so themselves; else
/// empty.
///
/// # Errors
///
/// Propagates the errors of [`Preprocessing::new`].
pub fn describe(component: &Component) -> Result<String> {
    // Considered by itself, it finds every image it names.
    let mut known: Vec<String> = match component.args.get("keys") {
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Some(Value::String(key)) => vec![key.clone()],
        _ => vec!["image".to_owned()],
    };
    Ok(match step(component, &mut known)? {
        None if component.target == "DeleteItemsd" => String::new(),
        None => "nothing to do: images are loaded channel-first as float32".to_owned(),
        Some(_) => String::new(),
    })
}

/// The positions of the existing keys among those that a component names.
struct Places {
    /// The position of each key.
    at: Vec<usize>,
    /// How many keys are named.
    of: usize,
}

/// Returns the images that a component works on: those of its keys that exist. Keys of labels and
/// boxes, which only exist in training, are skipped. It is an error if none exists.
fn component_keys(args: &mut Args, known: &[String]) -> Result<(Vec<String>, Places)> {
    let given: Vec<&str> = match args.raw("keys") {
        // An array transform works on the first image.
        None => {
            let keys: Vec<String> = known.first().cloned().into_iter().collect();
            return Ok((keys, Places { at: vec![0], of: 1 }));
        }
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(other) => other.as_str().into_iter().collect(),
    };
    let (at, found): (Vec<usize>, Vec<String>) = given
        .iter()
        .enumerate()
        .filter(|(_, key)| known.iter().any(|k| k == *key))
        .map(|(place, key)| (place, (*key).to_owned()))
        .unzip();
    if found.is_empty() {
        return Err(
            args.invalid("keys", &format!("some of the images there ({})", known.join(", ")))
        );
    }
    Ok((found, Places { at, of: given.len() }))
}

/// Whether a component works on every image.
fn covers(component: &Component, known: &[String]) -> bool {
    match component.args.get("keys") {
        Some(Value::Array(list)) => {
            known.iter().all(|key| list.iter().any(|k| k.as_str() == Some(key)))
        }
        Some(one) => known.iter().all(|key| one.as_str() == Some(key)),
        None => true,
    }
}

/// Returns the component for one of its keys: lists with a value per key become that value.
fn for_key(component: &Component, index: usize, keys: usize) -> Component {
    let mut alone = component.clone();
    if keys < 2 {
        return alone;
    }
    for name in BY_KEY {
        if let Some(Value::Array(list)) = alone.args.get(name)
            && list.len() == keys
        {
            let value = list[index].clone();
            alone.args.insert(name.to_owned(), value);
        }
    }
    alone
}

fn concat(component: &Component, keys: Vec<String>, known: &mut Vec<String>) -> Result<Step> {
    let mut args = Args::new(component);
    args.ignore(&["keys", "allow_missing_keys"]);
    if args.number("dim")?.is_some_and(|dim| dim != 0.0) {
        return Err(args.invalid("dim", "0"));
    }
    let name = args.string("name")?.ok_or_else(|| args.invalid("name", "a key"))?.to_owned();
    args.finish()?;
    if !known.contains(&name) {
        known.push(name.clone());
    }
    // The inputs are consumed.
    known.retain(|key| *key == name || !keys.contains(key));
    Ok(Step::Concat { keys, name, path: component.path.clone() })
}

fn matched(component: &Component, keys: Vec<String>) -> Result<Step> {
    let mut args = Args::new(component);
    args.ignore(&["keys", "allow_missing_keys", "dtype", "lazy"]);
    let reference =
        args.string("key_dst")?.ok_or_else(|| args.invalid("key_dst", "a key"))?.to_owned();
    let mode = match args.string("mode")? {
        None | Some("bilinear") => Interpolation::Linear,
        Some("nearest") => Interpolation::Nearest,
        Some(_) => return Err(args.invalid("mode", "bilinear or nearest")),
    };
    let padding = match args.string("padding_mode")? {
        None | Some("border") => PaddingMode::Border,
        Some("zeros") => PaddingMode::Zeros,
        Some("reflection") => PaddingMode::Reflection,
        Some(_) => return Err(args.invalid("padding_mode", "border, zeros or reflection")),
    };
    let align_corners = args.boolean("align_corners", false)?;
    args.finish()?;
    Ok(Step::Match { keys, reference, resample: Resample { mode, padding, align_corners } })
}

impl Step {
    /// Updates the images' extents and returns the bytes held besides them meanwhile.
    fn forecast(&self, images: &mut BTreeMap<String, Extent>) -> Result<u64> {
        let mut beside = 0_u64;
        match self {
            Self::Each(each) => {
                for (key, transform) in each {
                    let image = images.get_mut(key.as_str()).ok_or_else(|| lost(key))?;
                    let (after, held) = extent::step(&**transform, *image)?;
                    *image = after;
                    beside = beside.max(held);
                }
            }
            Self::Concat { keys, name, .. } => {
                let parts: Vec<Extent> = keys
                    .iter()
                    .map(|key| images.remove(key.as_str()).ok_or_else(|| lost(key)))
                    .collect::<Result<_>>()?;
                let first = *parts.first().ok_or_else(|| lost(name))?;
                let channels = parts.iter().map(|part| part.channels).sum();
                let joined = Extent { channels, ..first };
                beside = joined.bytes();
                images.insert(name.clone(), joined);
            }
            Self::Match { keys, reference, resample } => {
                let to = *images.get(reference.as_str()).ok_or_else(|| lost(reference))?;
                for key in keys.iter().filter(|key| *key != reference) {
                    let image = images.get_mut(key.as_str()).ok_or_else(|| lost(key))?;
                    let grids = ((to.dims, to.affine), (image.dims, image.affine));
                    let straight = resample.grid_map(&grids.0, &grids.1)?.is_some();
                    let way = image.way.resampled(straight);
                    *image = Extent { channels: image.channels, way, ..to };
                    beside = beside.max(image.bytes().saturating_mul(2));
                }
            }
        }
        Ok(beside)
    }

    fn run(&self, images: &mut BTreeMap<String, Image>) -> Result<()> {
        match self {
            Self::Each(each) => {
                for (key, transform) in each {
                    let place = images.get_mut(key.as_str()).ok_or_else(|| lost(key))?;
                    let empty = Image::new(Array4::zeros((0, 0, 0, 0)), place.affine);
                    *place = transform.apply(std::mem::replace(place, empty))?;
                }
                Ok(())
            }
            Self::Concat { keys, name, path } => {
                let parts: Vec<Image> = keys
                    .iter()
                    .map(|key| images.remove(key.as_str()).ok_or_else(|| lost(key)))
                    .collect::<Result<_>>()?;
                let joined = stack(parts, keys, &format!("{path}: ConcatItemsd"))?;
                images.insert(name.clone(), joined);
                Ok(())
            }
            Self::Match { keys, reference, resample } => {
                let to = images.get(reference.as_str()).ok_or_else(|| lost(reference))?;
                let to = (to.dims(), to.affine);
                for key in keys.iter().filter(|key| *key != reference) {
                    let image = images.get_mut(key.as_str()).ok_or_else(|| lost(key))?;
                    resampled(image, *resample, to)?;
                }
                Ok(())
            }
        }
    }
}

/// Joins images on the same grid as channels of one image, with the history of the first.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] if grids differ; the message names which.
pub fn stack(parts: Vec<Image>, names: &[String], what: &str) -> Result<Image> {
    let first = parts.first().ok_or_else(|| Error::internal("nothing to concatenate"))?;
    for (part, name) in parts.iter().zip(names).skip(1) {
        if let Some(why) = differs(first, part) {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!(
                    "{what}: {name} does not lie on the grid of {}: {why}; the bundle does not \
                     resample them to a common grid, so register and resample them before",
                    names.first().map_or("the first", String::as_str)
                ),
            )
            .with("image", name.as_str()));
        }
    }
    let views: Vec<_> = parts.iter().map(|part| part.data.view()).collect();
    let data = concatenate(Axis(0), &views)
        .map_err(|e| Error::internal("images cannot be concatenated").caused_by(e))?;
    Ok(Image { data, affine: first.affine, applied: first.applied.clone() })
}

/// Describes the difference between two grids.
fn differs(a: &Image, b: &Image) -> Option<String> {
    if a.dims() != b.dims() {
        return Some(format!("it has {:?} voxels, not {:?}", b.dims(), a.dims()));
    }
    let corner = a.dims().map(|n| n.saturating_sub(1) as f64);
    let farthest = (0..8)
        .map(|bits| {
            let at = std::array::from_fn(|i| if bits >> i & 1 == 1 { corner[i] } else { 0.0 });
            let (p, q) = (a.affine.apply(at), b.affine.apply(at));
            p.iter().zip(q).map(|(p, q)| (p - q).powi(2)).sum::<f64>().sqrt()
        })
        .fold(0.0, f64::max);
    (farthest > SAME_GRID).then(|| format!("its corners lie up to {farthest:.2} mm away"))
}

fn resampled(
    image: &mut Image,
    resample: Resample,
    to: ([usize; 3], crate::volume::Affine),
) -> Result<()> {
    let from = (image.dims(), image.affine);
    let channels = image
        .data
        .outer_iter()
        .map(|channel| resample.apply(channel, &from, &to).map(|c| c.insert_axis(Axis(0))))
        .collect::<Result<Vec<_>>>()?;
    let views: Vec<_> = channels.iter().map(|channel| channel.view()).collect();
    image.data = concatenate(Axis(0), &views)
        .map_err(|e| Error::internal("channels cannot be joined").caused_by(e))?;
    image.affine = to.1;
    image.applied.push(Applied::Resample { resample, from, to });
    Ok(())
}

#[cfg(test)]
mod tests;
