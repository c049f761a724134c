//! Finds the volumes in a series and selects the requested ones.

use std::borrow::Cow;

use serde_json::{Map, json};

use super::affine::cross;
use super::apart::{self, Trait};
use super::slice::{FrameGeometry, name, uid};
use super::stack::is_regular;
use super::traits::{name_of, values};
use crate::dicom::Series;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{Policy, Value, VolumeChoice, Volumes, Wanted};

/// Largest difference of orientation cosines and pixel spacings between slices of one volume.
const SAME_GRID: f64 = 1e-4;

/// Maximum number of grids in a series; with more, they are not volumes but unrelated slices.
const MOST_GRIDS: usize = 64;

/// Maximum number of volumes listed in an error's message, and in its details.
const LISTED: (usize, usize) = (12, 100);

/// Identifies one of several volumes.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeId {
    /// Its number in their list, counted from 1.
    pub number: usize,
    /// Total number of volumes.
    pub of: usize,
    /// The attributes that distinguish it: comma-separated `KEYWORD=VALUE` pairs.
    pub name: String,
}

/// The frames of one volume, in no particular order.
#[derive(Debug)]
pub(super) struct Candidate {
    pub frames: Vec<FrameGeometry>,
    traits: Vec<Trait>,
    /// `None` if it is the only one.
    pub id: Option<VolumeId>,
}

/// Groups frames, at least one, into volumes.
///
/// # Errors
/// [`ErrorKind::InvalidImage`], naming the instance, if frames differ too much to be volumes.
pub(super) fn find(series: &Series, frames: Vec<FrameGeometry>) -> Result<Vec<Candidate>> {
    let grids = by_grid(series, frames)?;
    let mut candidates = Vec::new();
    let differing = differing_attributes(&grids);
    for grid in grids {
        let own: Vec<Trait> = differing.iter().map(|attribute| attribute.of(&grid[0])).collect();
        let normal = cross(grid[0].row_direction, grid[0].column_direction);
        let mut parts = apart::split(series, grid, normal);
        if let [part] = &parts[..]
            && part.traits.is_empty()
            && !is_regular(&part.frames, normal)
            && let Some(interleaved) =
                apart::interleaved(series, &part.frames, normal, |f| is_regular(f, normal))
        {
            parts = interleaved;
        }
        candidates.extend(parts.into_iter().map(|part| Candidate {
            frames: part.frames,
            traits: own.iter().cloned().chain(part.traits).collect(),
            id: None,
        }));
    }
    let of = candidates.len();
    if of > 1 {
        for (index, candidate) in candidates.iter_mut().enumerate() {
            let name = named(&candidate.traits);
            candidate.id = Some(VolumeId { number: index + 1, of, name });
        }
    }
    Ok(candidates)
}

fn named(traits: &[Trait]) -> String {
    let parts: Vec<String> = traits.iter().map(|(key, value)| format!("{key}={value}")).collect();
    parts.join(",")
}

/// Groups frames of the same size, spacing, orientation and frame of reference, in the order of
/// each group's first frame.
fn by_grid(series: &Series, frames: Vec<FrameGeometry>) -> Result<Vec<Vec<FrameGeometry>>> {
    let mut grids: Vec<Vec<FrameGeometry>> = Vec::new();
    for frame in frames {
        match grids.iter().position(|grid| difference(&grid[0], &frame).is_none()) {
            Some(grid) => grids[grid].push(frame),
            None if grids.len() < MOST_GRIDS => grids.push(vec![frame]),
            None => {
                let first = &grids[0][0];
                let why = format!("the series has slices of more than {MOST_GRIDS} kinds");
                return Err(odd_one(series, first, &frame, ErrorKind::InvalidImage, &why));
            }
        }
    }
    Ok(grids)
}

/// Attributes that the slices of one volume share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shared {
    Size,
    Spacing,
    Orientation,
    FrameOfReference,
}

impl Shared {
    const ALL: [Self; 4] = [Self::Size, Self::Spacing, Self::Orientation, Self::FrameOfReference];

    fn keyword(self) -> &'static str {
        match self {
            Self::Size => "Rows and Columns",
            Self::Spacing => "PixelSpacing",
            Self::Orientation => "ImageOrientationPatient",
            Self::FrameOfReference => "FrameOfReferenceUID",
        }
    }

    fn is_same(self, a: &FrameGeometry, b: &FrameGeometry) -> bool {
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(x, y)| (x - y).abs() <= SAME_GRID);
        match self {
            Self::Size => (a.format.rows, a.format.columns) == (b.format.rows, b.format.columns),
            Self::Spacing => near(&a.pixel_spacing, &b.pixel_spacing),
            Self::Orientation => {
                near(&a.row_direction, &b.row_direction)
                    && near(&a.column_direction, &b.column_direction)
            }
            Self::FrameOfReference => a.frame_of_reference == b.frame_of_reference,
        }
    }

    fn of(self, frame: &FrameGeometry) -> Trait {
        let numbers = |values: &[f64]| {
            let texts: Vec<String> = values.iter().map(|v| format!("{}", round(*v))).collect();
            Value::Text(texts.join("\\"))
        };
        let value = match self {
            Self::Size => Value::Text(format!("{}\\{}", frame.format.rows, frame.format.columns)),
            Self::Spacing => numbers(&frame.pixel_spacing),
            Self::Orientation => numbers(&[frame.row_direction, frame.column_direction].concat()),
            Self::FrameOfReference => {
                let uid = frame.frame_of_reference.as_deref().unwrap_or("none");
                Value::Text(uid.chars().take(64).collect())
            }
        };
        (Cow::Borrowed(self.keyword()), value)
    }
}

/// Rounds to four decimals, the tolerance within which grids are the same.
fn round(value: f64) -> f64 {
    let rounded = (value / SAME_GRID).round() * SAME_GRID;
    // Removes the product's trailing digits and a negative zero.
    format!("{rounded:.4}").parse::<f64>().map_or(rounded, |v| v + 0.0)
}

/// Returns the first attribute in which two frames differ.
fn difference(a: &FrameGeometry, b: &FrameGeometry) -> Option<Shared> {
    Shared::ALL.into_iter().find(|shared| !shared.is_same(a, b))
}

/// Returns the attributes in which the grids differ.
fn differing_attributes(grids: &[Vec<FrameGeometry>]) -> Vec<Shared> {
    let Some(first) = grids.first() else { return Vec::new() };
    let differs = |shared: &Shared| grids.iter().any(|grid| !shared.is_same(&first[0], &grid[0]));
    Shared::ALL.into_iter().filter(differs).collect()
}

fn odd_one(
    series: &Series,
    first: &FrameGeometry,
    other: &FrameGeometry,
    kind: ErrorKind,
    why: &str,
) -> Error {
    let Some(differing) = difference(first, other) else { return Error::new(kind, why) };
    let differing = differing.keyword();
    Error::new(
        kind,
        format!(
            "{why}; instance {}: {differing} differs from instance {}",
            name(series, other),
            name(series, first)
        ),
    )
    .with("sopInstanceUID", uid(series, other))
    .with("attribute", differing)
}

/// Selects volumes: the requested one, or those that `policy` selects among several.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] if the choice matches none or several, [`ErrorKind::InvalidImage`]
/// if there are several and nothing selects one; both list the volumes.
pub(super) fn chosen(
    series: &Series,
    mut candidates: Vec<Candidate>,
    wanted: Wanted,
    policy: &Policy,
) -> Result<Vec<Candidate>> {
    if let ([only], Wanted::Asked(_)) = (&mut candidates[..], wanted) {
        // The attributes that would identify it among others.
        only.traits = traits_of(series, &only.frames[0]);
    }
    let choice = match wanted {
        Wanted::Any => None,
        Wanted::Usual(_) if candidates.len() < 2 => None,
        Wanted::Usual(choice) | Wanted::Asked(choice) => Some(choice),
    };
    if let Some(choice) = choice {
        let meant: Vec<usize> =
            (0..candidates.len()).filter(|&i| candidates[i].is(choice, i + 1)).collect();
        return match meant[..] {
            [one] => Ok(vec![candidates.swap_remove(one)]),
            [] => Err(listed(
                series,
                &candidates,
                ErrorKind::InvalidRequest,
                "\"volume\" is none of the series' volumes",
            )),
            _ => Err(listed(
                series,
                &candidates,
                ErrorKind::InvalidRequest,
                "\"volume\" may be several of the series' volumes",
            )),
        };
    }
    if candidates.len() < 2 {
        return Ok(candidates);
    }
    match policy.volumes {
        Volumes::Each => Ok(candidates),
        Volumes::First => {
            candidates.truncate(1);
            Ok(candidates)
        }
        Volumes::Largest => {
            // The first among equals, which `max_by_key` would not return.
            let voxels = |c: &Candidate| {
                c.frames.iter().map(|frame| frame.format.pixels() as u64).sum::<u64>()
            };
            let largest = (0..candidates.len())
                .min_by_key(|&index| std::cmp::Reverse(voxels(&candidates[index])));
            Ok(vec![candidates.swap_remove(largest.unwrap_or(0))])
        }
        Volumes::Refuse => {
            let why = format!("the series holds {} volumes", candidates.len());
            let error = listed(series, &candidates, ErrorKind::InvalidImage, &why);
            // If a slice differs from the others, that is the likely cause.
            let (first, others) = (&candidates[0].frames[0], &candidates[1..]);
            let odd = others
                .iter()
                .find_map(|c| c.frames.iter().find(|frame| difference(first, frame).is_some()));
            Err(match odd {
                None => error,
                Some(frame) => {
                    let details = error.details().clone();
                    let why = error.message().to_owned();
                    let mut named = odd_one(series, first, frame, ErrorKind::InvalidImage, &why);
                    for (key, value) in details {
                        named = named.with(&key, value);
                    }
                    named
                }
            })
        }
    }
}

/// Returns all attributes that may distinguish the volume of a frame.
fn traits_of(series: &Series, frame: &FrameGeometry) -> Vec<Trait> {
    values(series, frame).into_iter().map(|(key, value)| (name_of(key), value)).collect()
}

impl Candidate {
    /// Whether a choice selects this volume, which has the given number.
    fn is(&self, choice: &VolumeChoice, number: usize) -> bool {
        match choice {
            VolumeChoice::Number(wanted) => usize::try_from(*wanted) == Ok(number),
            VolumeChoice::Name(name) => {
                let name = name.trim();
                named(&self.traits).to_lowercase() == name.to_lowercase()
                    || parts(name).is_some_and(|wanted| self.has(&wanted))
            }
            VolumeChoice::Attributes(wanted) => self.has(wanted),
        }
    }

    /// Whether all of these attributes have these values.
    fn has(&self, wanted: &[(String, Value)]) -> bool {
        wanted.iter().all(|(keyword, value)| {
            let same = |key: &str| key.eq_ignore_ascii_case(keyword.trim());
            self.traits.iter().any(|(key, own)| same(key) && own.is(value))
        })
    }
}

/// Parses a name, or part of one, into its attributes: comma-separated `KEYWORD=VALUE` pairs.
fn parts(name: &str) -> Option<Vec<(String, Value)>> {
    let part = |part: &str| {
        let (keyword, value) = part.split_once('=')?;
        Some((keyword.to_owned(), Value::Text(value.to_owned())))
    };
    name.split(',').map(part).collect()
}

fn listed(series: &Series, candidates: &[Candidate], kind: ErrorKind, why: &str) -> Error {
    let (in_message, in_details) = LISTED;
    let line = |(index, candidate): (usize, &Candidate)| {
        let format = candidate.frames[0].format;
        let name = match candidate.id {
            None => "the only one".to_owned(),
            Some(_) => named(&candidate.traits),
        };
        format!(
            "{}: {name} ({} slices of {} × {})",
            index + 1,
            candidate.frames.len(),
            format.columns,
            format.rows
        )
    };
    let mut list: Vec<String> = candidates.iter().enumerate().take(in_message).map(line).collect();
    if candidates.len() > in_message {
        list.push(format!("and {} more", candidates.len() - in_message));
    }
    let volumes: Vec<_> = candidates
        .iter()
        .enumerate()
        .take(in_details)
        .map(|(index, candidate)| {
            let traits: Map<String, serde_json::Value> = candidate
                .traits
                .iter()
                .map(|(key, value)| {
                    let value = match value {
                        Value::Number(number) => json!(number),
                        Value::Text(text) => json!(text),
                    };
                    (key.clone().into_owned(), value)
                })
                .collect();
            json!({
                "number": index + 1,
                "name": named(&candidate.traits),
                "attributes": traits,
                "slices": candidate.frames.len(),
                "rows": candidate.frames[0].format.rows,
                "columns": candidate.frames[0].format.columns,
            })
        })
        .collect();
    Error::new(
        kind,
        format!(
            "{why}: {}; name one by \"volume\" (its number, its name or its attributes), or set the \
             policy \"volumes\" to \"first\", \"largest\" or \"each\"",
            list.join("; ")
        ),
    )
    .with("seriesInstanceUID", series.series_instance_uid.as_str())
    .with("volumes", volumes)
}
