//! DICOM Part 10 objects in memory as sources: what a request's body, an archive or S3 brought.
//!
//! Each object is parsed as it comes and its bytes are given up, so that pixel data is held once.
//! Errors count objects instead of naming them: names of files are often those of patients.

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

/// Objects by their series.
#[derive(Debug)]
pub struct DicomObjects {
    series: BTreeMap<String, DicomSeries>,
    /// The series of each instance, and where in it it is.
    instances: BTreeMap<String, (String, usize)>,
    passed_over: PassedOver,
    /// The memory that is charged, and what of it objects hold so far.
    grant: Grant,
    held: u64,
}

/// One series in memory.
#[derive(Debug)]
pub struct DicomSeries {
    series: Series,
    /// Frames of each instance.
    frames: Vec<Vec<Bytes>>,
    /// ETag of the object in S3 that holds all of it.
    e_tag: Option<String>,
    /// What lay beside it and is no image.
    warnings: Vec<String>,
    /// The memory of all series that came together.
    _memory: Option<Arc<Grant>>,
}

impl DicomObjects {
    /// None yet, whose memory is charged to `grant`; it grows with them where it does not suffice.
    pub fn new(grant: Grant) -> Self {
        Self {
            series: BTreeMap::new(),
            instances: BTreeMap::new(),
            passed_over: PassedOver::default(),
            grant,
            held: 0,
        }
    }

    /// The same, whose memory is charged to `grant` as a whole.
    ///
    /// # Errors
    /// Those of [`Grant::join`].
    pub fn charged(mut self, grant: Grant) -> Result<Self> {
        self.held = self.held.saturating_add(grant.bytes());
        self.grant.join(grant)?;
        Ok(self)
    }

    /// Charges `bytes` more, which are about to be held.
    ///
    /// # Errors
    /// Those of [`Grant::grow`].
    pub fn hold(&mut self, bytes: u64) -> Result<()> {
        self.held = self.held.saturating_add(bytes);
        match self.held.checked_sub(self.grant.bytes()) {
            Some(more @ 1..) => self.grant.grow(more),
            _ => Ok(()),
        }
    }

    /// Parses one object; what is no DICOM file, or has no image, is passed over and counted.
    ///
    /// # Errors
    /// Those of [`p10::examine_from`], naming the object by `number`, counted from one.
    pub fn add(&mut self, number: usize, data: &[u8]) -> Result<()> {
        if !p10::is_dicom(&data[..data.len().min(p10::HEAD)]) {
            self.passed_over.add_no_dicom();
            return Ok(());
        }
        self.read(number, data, data.len() as u64)
    }

    /// As [`add`](Self::add), of what is known to be a DICOM file of `length` bytes, which are charged.
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

    /// Adds an instance of a study and a series. One that is there already is taken once where both are
    /// the same, and otherwise is an error: it would be two slices at one place.
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

    /// Adds what others hold, behind what is there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`], of instances that both have and that differ.
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

    /// The series, by SeriesInstanceUID.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] where there is none.
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
    /// Its SeriesInstanceUID.
    pub fn uid(&self) -> &str {
        &self.series.series_instance_uid
    }

    /// The same, read from the object in S3 of that ETag.
    #[must_use]
    pub fn of_object(self, e_tag: Option<String>) -> Self {
        Self { e_tag, ..self }
    }
}

/// Those of `series` that have this SeriesInstanceUID, or all of them.
///
/// # Errors
/// [`ErrorKind::NotFound`] where there is none, with the UIDs there are.
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
