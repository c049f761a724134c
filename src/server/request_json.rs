//! The JSON form of a request: `{"inputs":[{…}]}` or a bare `{…}`, with options beside the inputs.
//!
//! The body is parsed directly into bounded fields, so a hostile body costs no more memory than its
//! own size. Errors name the JSON path and the expected form but never repeat a value: a value sent
//! by mistake may be a patient name, and errors are logged.

mod fields;

use crate::archive::{Archive, ServiceUrl, Store, is_datastore_id};
use crate::dicom::uid;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::PolicyChoice;
use crate::request::{Input, OutputKind, SegmentationChoice, is_s3_uri};
use fields::{Fields, Image, Images, Label, List, Object, StoreField, Text};

/// Maximum length of a JSON path in an error: its last part may be an arbitrary field of the
/// client.
const LONGEST_PATH: usize = 120;

/// A parsed request body.
#[derive(Debug, PartialEq)]
pub(super) struct Body {
    /// The inputs; at least one.
    pub inputs: Vec<Input>,
    /// Field `model`.
    pub model: Option<String>,
    /// Field `outputs`, without duplicates; empty if absent.
    pub outputs: Vec<OutputKind>,
    /// Field `segments`; empty if absent.
    pub segments: Vec<String>,
    /// Field `segmentation`.
    pub segmentation: SegmentationChoice,
    /// Field `outputS3Uri`.
    pub output_uri: Option<String>,
    /// Field `store`.
    pub store: Store,
    /// Field `policy`.
    pub policy: PolicyChoice,
}

impl Body {
    /// Returns the body for images sent directly, without options.
    pub fn of_images(bytes: bytes::Bytes) -> Self {
        Self {
            inputs: vec![Input::Body(bytes)],
            model: None,
            outputs: Vec::new(),
            segments: Vec::new(),
            segmentation: SegmentationChoice::default(),
            output_uri: None,
            store: Store::Unsaid,
            policy: PolicyChoice::default(),
        }
    }

    /// Returns the URI of a request in S3, if it is the only input.
    pub fn request_object(&self) -> Option<String> {
        match &self.inputs[..] {
            [Input::S3 { uri, series_instance_uid: None }] => {
                uri.to_ascii_lowercase().ends_with(".json").then(|| uri.clone())
            }
            _ => None,
        }
    }

    /// Combines the inputs of `inner` with the options of both; those of `self` take precedence.
    pub fn over(self, inner: Self) -> Self {
        Self {
            inputs: inner.inputs,
            model: self.model.or(inner.model),
            outputs: if self.outputs.is_empty() { inner.outputs } else { self.outputs },
            segments: if self.segments.is_empty() { inner.segments } else { self.segments },
            segmentation: self.segmentation.or(inner.segmentation),
            output_uri: self.output_uri.or(inner.output_uri),
            store: self.store.or(inner.store),
            policy: self.policy.or(inner.policy),
        }
    }
}

/// Parses a request body with at most `most_inputs` inputs.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`], naming the JSON path.
pub(super) fn parse(body: &[u8], most_inputs: usize) -> Result<Body> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(mut fields): Object<Fields> =
        serde_path_to_error::deserialize(&mut json).map_err(|e| {
            let path = e.path().to_string();
            describe(&path, e.inner())
        })?;
    json.end().map_err(|e| describe("", &e))?;

    let (images, image) = (fields.images.take(), fields.image());
    let inputs = match (fields.inputs, images.is_none() && image.is_empty()) {
        (Some(_), false) => {
            return Err(invalid("inputs", "must not stand beside the fields of a single input"));
        }
        (None, true) => {
            return Err(invalid(
                "inputs",
                "is missing, as are datastoreId with imageSetId, and s3Uri",
            ));
        }
        (Some(List(sets)), true) if sets.is_empty() => {
            return Err(invalid("inputs", "lists nothing"));
        }
        (Some(List(sets)), true) if sets.len() > most_inputs => {
            let most = format!("lists more than {most_inputs} (MAX_INPUTS_PER_REQUEST)");
            return Err(invalid("inputs", &most));
        }
        (Some(List(sets)), true) => sets
            .into_iter()
            .enumerate()
            .map(|(i, Object(mut fields))| {
                let image = fields.image();
                one(fields.images, image, &format!("inputs[{i}]"))
            })
            .collect::<Result<_>>()?,
        (None, false) => vec![one(images, image, "")?],
    };
    let output_uri = plain(fields.output_uri);
    if output_uri.as_deref().is_some_and(|uri| !is_s3_uri(uri)) {
        return Err(invalid("outputS3Uri", "must be s3://BUCKET/PREFIX"));
    }
    Ok(Body {
        inputs,
        model: plain(fields.model),
        outputs: outputs(fields.outputs)?,
        segments: segments(fields.segments)?,
        segmentation: fields.segmentation.map(|Object(choice)| choice).unwrap_or_default(),
        output_uri,
        store: fields.store.map_or(Ok(Store::Unsaid), store)?,
        policy: fields.policy.map(|Object(policy)| policy).unwrap_or_default(),
    })
}

/// The text of a field.
fn plain<const MOST: usize>(text: Option<Text<MOST>>) -> Option<String> {
    text.map(|Text(text)| text)
}

/// Returns the input at `path`, which is empty for the bare form.
fn one(images: Option<Images>, image: Image, path: &str) -> Result<Input> {
    let Some(Images(images)) = images else { return image.input(path) };
    let here = below(path, "images");
    if !image.is_empty() {
        return Err(invalid(&here, "must not stand beside the fields of one image"));
    }
    if images.is_empty() {
        return Err(invalid(&here, "names nothing"));
    }
    // Image names come from the client, so errors omit them.
    let path = format!("{here}.*");
    let images = images.into_iter().map(|(name, image)| Ok((name, image.input(&path)?)));
    Ok(Input::Images(images.collect::<Result<_>>()?))
}

/// Returns the path of a field below `path`, which may be empty.
fn below(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

impl Image {
    fn is_empty(&self) -> bool {
        self.datastore_id.is_none()
            && self.image_set_id.is_none()
            && self.version_id.is_none()
            && self.study_instance_uid.is_none()
            && self.series_instance_uid.is_none()
            && self.s3_uri.is_none()
            && self.volume.is_none()
    }

    /// Returns the image at `path`: in S3, a study, or an image set.
    fn input(mut self, path: &str) -> Result<Input> {
        let volume = self.volume.take();
        let place = self.place(path)?;
        Ok(match volume {
            None => place,
            Some(choice) => Input::Volume { choice, of: Box::new(place) },
        })
    }

    fn place(self, path: &str) -> Result<Input> {
        let uids = [
            ("studyInstanceUID", &self.study_instance_uid),
            ("seriesInstanceUID", &self.series_instance_uid),
        ];
        for (field, uid) in uids {
            if uid.as_ref().is_some_and(|Text(uid)| !uid::is_written(uid)) {
                return Err(invalid(&below(path, field), "must be a DICOM UID"));
            }
        }
        if self.s3_uri.is_some() {
            self.in_s3(path)
        } else if self.study_instance_uid.is_some() {
            self.study(path)
        } else {
            self.image_set(path)
        }
    }

    /// Rejects fields that conflict with `kind`.
    fn only(path: &str, kind: &str, others: &[(&str, bool)]) -> Result<()> {
        match others.iter().find(|(_, there)| *there) {
            Some((field, _)) => {
                Err(invalid(&below(path, field), &format!("must not stand beside {kind}")))
            }
            None => Ok(()),
        }
    }

    fn in_s3(self, path: &str) -> Result<Input> {
        let others = [
            ("datastoreId", self.datastore_id.is_some()),
            ("imageSetId", self.image_set_id.is_some()),
            ("versionId", self.version_id.is_some()),
            ("studyInstanceUID", self.study_instance_uid.is_some()),
        ];
        Self::only(path, "s3Uri", &others)?;
        let Text(uri) = self.s3_uri.unwrap_or_default();
        if !is_s3_uri(&uri) {
            return Err(invalid(&below(path, "s3Uri"), "must be s3://BUCKET/KEY"));
        }
        Ok(Input::S3 { uri, series_instance_uid: plain(self.series_instance_uid) })
    }

    fn study(self, path: &str) -> Result<Input> {
        let others =
            [("imageSetId", self.image_set_id.is_some()), ("versionId", self.version_id.is_some())];
        Self::only(path, "studyInstanceUID", &others)?;
        let Text(datastore_id) = self.datastore_id.ok_or_else(|| missing(path, "datastoreId"))?;
        check_id(path, "datastoreId", &datastore_id)?;
        Ok(Input::Study {
            datastore_id,
            study_instance_uid: plain(self.study_instance_uid).unwrap_or_default(),
            series_instance_uid: plain(self.series_instance_uid),
        })
    }

    fn image_set(self, path: &str) -> Result<Input> {
        let others = [("seriesInstanceUID", self.series_instance_uid.is_some())];
        Self::only(path, "an image set, which holds one series", &others)?;
        let Text(datastore_id) = self.datastore_id.ok_or_else(|| missing(path, "datastoreId"))?;
        let Text(image_set_id) = self.image_set_id.ok_or_else(|| missing(path, "imageSetId"))?;
        check_id(path, "datastoreId", &datastore_id)?;
        check_id(path, "imageSetId", &image_set_id)?;
        let version_id = plain(self.version_id);
        if let Some(version) = &version_id
            && (!(1..=19).contains(&version.len()) || !version.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(invalid(&below(path, "versionId"), "must be a number as a string"));
        }
        Ok(Input::ImageSet { datastore_id, image_set_id, version_id })
    }
}

/// With an empty path the field itself is reported missing; otherwise the object that should
/// contain it.
fn missing(path: &str, field: &str) -> Error {
    match path {
        "" => invalid(field, "is missing"),
        path => invalid(path, &format!("has a missing field `{field}`")),
    }
}

fn check_id(path: &str, field: &str, id: &str) -> Result<()> {
    if is_datastore_id(id) {
        return Ok(());
    }
    Err(invalid(&below(path, field), "must be 32 characters of 0-9 and a-z"))
}

fn outputs<const MOST: usize>(wanted: Option<List<OutputKind, MOST>>) -> Result<Vec<OutputKind>> {
    let Some(List(wanted)) = wanted else { return Ok(Vec::new()) };
    if wanted.is_empty() {
        return Err(invalid("outputs", "lists nothing; leave it out for the model's own outputs"));
    }
    let mut kinds = Vec::new();
    for (i, kind) in wanted.into_iter().enumerate() {
        if kinds.contains(&kind) {
            return Err(invalid(&format!("outputs[{i}]"), "is there twice"));
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

/// Returns the segment labels; the model validates them.
fn segments<const MOST: usize>(wanted: Option<List<Label, MOST>>) -> Result<Vec<String>> {
    let Some(List(wanted)) = wanted else { return Ok(Vec::new()) };
    if wanted.is_empty() {
        return Err(invalid("segments", "lists nothing; leave it out for all of the model's"));
    }
    Ok(wanted.into_iter().map(|Text(label)| label).collect())
}

fn store(field: StoreField) -> Result<Store> {
    match field {
        StoreField::Flag(true) => Ok(Store::In(Archive::Input)),
        StoreField::Flag(false) => Ok(Store::Nowhere),
        StoreField::Datastore(Text(id)) => {
            check_id("store", "datastoreId", &id)?;
            Ok(Store::In(Archive::Datastore(id)))
        }
        StoreField::Service(Text(url)) => {
            let problem =
                "must be http(s)://HOST[:PORT][/PATH] without credentials, query, `..` or `%`";
            let url = ServiceUrl::parse(&url).ok_or_else(|| invalid("store.dicomweb", problem))?;
            Ok(Store::In(Archive::Service(url)))
        }
    }
}

/// Describes the problem at `path`, using only those parts of serde's message that do not come from
/// the body.
fn describe(path: &str, error: &serde_json::Error) -> Error {
    let (line, column) = (error.line(), error.column());
    if !error.is_data() {
        let what = if error.is_eof() { "ends too early" } else { "is not JSON" };
        return Error::new(
            ErrorKind::InvalidRequest,
            format!("the body {what}, at line {line}, column {column}"),
        )
        .with("line", line)
        .with("column", column);
    }
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    let problem = if text.starts_with("duplicate field") {
        // The field name is one of ours, and serde's path ends above it.
        format!("has {text}")
    } else if text.starts_with("missing field") {
        format!("has a {text}")
    } else {
        // The message quotes the found value before this point.
        let expected = text.rsplit_once(", expected ").map_or("something else", |(_, e)| e);
        format!("is not known or not as expected: expected {expected}")
    };
    invalid(path, &problem)
}

fn invalid(path: &str, problem: &str) -> Error {
    let path: String = path.chars().filter(|c| !c.is_control()).take(LONGEST_PATH).collect();
    let place = if matches!(path.as_str(), "" | ".") { "the body" } else { &path };
    Error::new(ErrorKind::InvalidRequest, format!("{place} {problem}")).with("path", path)
}

#[cfg(test)]
mod tests;
