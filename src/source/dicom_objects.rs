//! DICOM Part 10 objects in memory as sources: from a request's body, an archive or S3.
//!
//! Each object is parsed on arrival and its bytes are released, so that pixel data is held once.
//! Errors number the objects instead of naming them, because file names often contain patient
//! names.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_dictionary_std::tags;
use futures::stream::{self, BoxStream, StreamExt};

use super::{EncodedFrame, ImageSource, Origin};
use crate::dicom::p10::{self, Content, P10Instance};
use crate::dicom::{Attributes, FrameKey, Instance, PassedOver, Series};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Grant;

/// Objects grouped by series.
#[derive(Debug)]
pub struct DicomObjects {
    series: BTreeMap<String, DicomSeries>,
    /// The series of each instance, and its index in that series.
    instances: BTreeMap<String, (String, usize)>,
    passed_over: PassedOver,
    /// The memory charged, and how much of it the objects hold so far.
    grant: Grant,
    held: u64,
}

/// One series in memory.
#[derive(Debug)]
pub struct DicomSeries {
    series: Series,
    /// The frames of each instance.
    frames: Vec<Vec<Bytes>>,
    /// ETag of the S3 object that holds the whole series.
    e_tag: Option<String>,
    /// Warnings about skipped objects without an image.
    warnings: Vec<String>,
    /// Memory shared by all series of the same input.
    _memory: Option<Arc<Grant>>,
}

impl DicomObjects {
    /// Creates an empty collection charged to `grant`, which grows if it does not suffice.
    pub fn new(grant: Grant) -> Self {
        Self {
            series: BTreeMap::new(),
            instances: BTreeMap::new(),
            passed_over: PassedOver::default(),
            grant,
            held: 0,
        }
    }

    /// Adds `grant` to the memory that the objects are charged to; all of it counts as held.
    ///
    /// # Errors
    /// Propagates the errors of [`Grant::join`].
    pub fn charged(mut self, grant: Grant) -> Result<Self> {
        self.held = self.held.saturating_add(grant.bytes());
        self.grant.join(grant)?;
        Ok(self)
    }

    /// Charges `bytes` more before they are allocated.
    ///
    /// # Errors
    /// Propagates the errors of [`Grant::grow`].
    pub fn hold(&mut self, bytes: u64) -> Result<()> {
        self.held = self.held.saturating_add(bytes);
        match self.held.checked_sub(self.grant.bytes()) {
            Some(more @ 1..) => self.grant.grow(more),
            _ => Ok(()),
        }
    }

    /// Parses one object. Skips and counts data that is not a DICOM file or has no image.
    ///
    /// # Errors
    /// Propagates the errors of [`p10::examine_from`], naming the object by `number`, counted from
    /// one.
    pub fn add(&mut self, number: usize, data: &[u8]) -> Result<()> {
        if !p10::is_dicom(&data[..data.len().min(p10::HEAD)]) {
            self.passed_over.add_no_dicom();
            return Ok(());
        }
        self.read(number, data, data.len() as u64)
    }

    /// Like [`add`](Self::add), for a known DICOM file of `length` bytes, which are already
    /// charged.
    pub fn read(&mut self, number: usize, file: impl Read, length: u64) -> Result<()> {
        let named = |e: Error| e.context(format_args!("object {number}")).with("object", number);
        let mut hold = |bytes| self.hold(bytes);
        match p10::examine_from(file, length, &mut hold).map_err(named)? {
            Content::Image(parsed) => self.insert(parsed).map_err(named),
            Content::NoImage(class) => {
                self.passed_over.add_without_image(class.as_deref());
                Ok(())
            }
        }
    }

    /// Adds a parsed object.
    fn insert(&mut self, parsed: P10Instance) -> Result<()> {
        let study = parsed.dataset.required_text(tags::STUDY_INSTANCE_UID)?;
        let series = parsed.dataset.required_text(tags::SERIES_INSTANCE_UID)?;
        let (instance, frames) = p10::described(parsed);
        self.put((study, series), instance, frames)
    }

    /// Adds an instance of a study and a series. An identical duplicate is skipped; a different
    /// instance with the same UID is an error, because there would be two slices at one position.
    fn put(
        &mut self,
        (study, series): (String, String),
        instance: Instance,
        frames: Vec<Bytes>,
    ) -> Result<()> {
        let uid = instance.sop_instance_uid.as_str();
        if let Some((in_series, index)) = self.instances.get(uid) {
            let there = self.series.get(in_series);
            let same = there.is_some_and(|there| {
                let (known, pixels) = (&there.series.instances[*index], &there.frames[*index]);
                *in_series == series && p10::identical((known, pixels), (&instance, &frames))
            });
            if !same {
                return Err(Error::new(
                    ErrorKind::InvalidImage,
                    format!("instance {uid} is there twice with different content; remove one"),
                )
                .with("sopInstanceUID", uid));
            }
            self.passed_over.add_copy();
            return Ok(());
        }
        let known = self.series.entry(series.clone()).or_insert_with(|| DicomSeries {
            series: Series {
                study_instance_uid: study,
                series_instance_uid: series.clone(),
                instances: Vec::new(),
            },
            frames: Vec::new(),
            e_tag: None,
            warnings: Vec::new(),
            _memory: None,
        });
        self.instances.insert(uid.to_owned(), (series, known.frames.len()));
        known.series.instances.push(instance);
        known.frames.push(frames);
        Ok(())
    }

    /// Adds the objects of `others` after the existing ones.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] if an instance is in both with different content.
    pub fn append(&mut self, others: Self) -> Result<()> {
        self.passed_over.append(others.passed_over);
        self.held = self.held.saturating_add(others.held);
        self.grant.join(others.grant)?;
        for (uid, DicomSeries { series, frames, .. }) in others.series {
            for (instance, frames) in series.instances.into_iter().zip(frames) {
                self.put((series.study_instance_uid.clone(), uid.clone()), instance, frames)?;
            }
        }
        Ok(())
    }

    /// Returns the series, ordered by SeriesInstanceUID.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] if there is none.
    pub fn into_series(self) -> Result<Vec<DicomSeries>> {
        if self.series.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!("there is no DICOM image; found {}", self.passed_over.found()),
            ));
        }
        let Self { series, mut grant, held, passed_over, .. } = self;
        grant.shrink_to(held);
        let memory = Arc::new(grant);
        let warnings = passed_over.warnings();
        let with = |series| DicomSeries {
            warnings: warnings.clone(),
            _memory: Some(Arc::clone(&memory)),
            ..series
        };
        Ok(series.into_values().map(with).collect())
    }
}

impl DicomSeries {
    /// Returns its SeriesInstanceUID.
    pub fn uid(&self) -> &str {
        &self.series.series_instance_uid
    }

    /// Records the ETag of the S3 object that it was read from.
    #[must_use]
    pub fn of_object(self, e_tag: Option<String>) -> Self {
        Self { e_tag, ..self }
    }
}

/// Returns the `series` with this SeriesInstanceUID, or all of them if it is `None`.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is none, listing the available UIDs.
pub fn of_uid(series: Vec<DicomSeries>, uid: Option<&str>) -> Result<Vec<DicomSeries>> {
    let meant = |one: &DicomSeries| uid.is_none_or(|uid| one.uid() == uid);
    let (chosen, others): (Vec<_>, Vec<_>) = series.into_iter().partition(meant);
    if chosen.is_empty() {
        let there: Vec<&str> = others.iter().map(DicomSeries::uid).collect();
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no series of that seriesInstanceUID; there are {}", there.join(", ")),
        )
        .with("series", there));
    }
    Ok(chosen)
}

#[async_trait]
impl ImageSource for DicomSeries {
    async fn series(&self) -> Result<Series> {
        Ok(self.series.clone())
    }

    fn origin(&self) -> Option<Origin> {
        let e_tag = self.e_tag.as_deref()?.trim_matches('"').to_owned();
        Some(Origin { e_tag: Some(e_tag), ..Origin::default() })
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn frames(&self, _: &Series, keys: Vec<FrameKey>) -> BoxStream<'static, Result<EncodedFrame>> {
        let frame = |key: FrameKey| {
            let data = self.frames.get(key.instance).and_then(|frames| frames.get(key.frame));
            let data = data.cloned().ok_or_else(|| {
                Error::new(
                    ErrorKind::CorruptFrame,
                    format!("instance {} has no frame {}", key.instance + 1, key.frame + 1),
                )
            })?;
            Ok(EncodedFrame { key, data })
        };
        let mut frames: Vec<Result<EncodedFrame>> = keys.into_iter().map(frame).collect();
        if let Some(first) = frames.iter().position(Result::is_err) {
            frames.truncate(first + 1);
        }
        stream::iter(frames).boxed()
    }
}
