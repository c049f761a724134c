//! The JSON form of a request: `{"inputs":[{…}]}` or a bare `{…}`, options beside the inputs.
//!
//! It is read straight into its fields, so that a hostile body costs no more memory than its own
//! size. Errors name the JSON path and what is expected there, and never repeat a value: what was
//! sent by mistake may be a patient's name, and errors are logged.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, ErrorKind, Result};
use crate::request::{Input, OutputKind, is_s3_uri, is_uid};

/// Longest JSON path repeated in an error: its last part may be a field the client made up.
const LONGEST_PATH: usize = 120;

/// What the body of a request says.
#[derive(Debug, PartialEq)]
pub(super) struct Body {
    /// At least one.
    pub inputs: Vec<Input>,
    /// Field `model`.
    pub model: Option<String>,
    /// Field `outputs`, without repetitions; empty where absent.
    pub outputs: Vec<OutputKind>,
    /// Field `outputS3Uri`.
    pub output_uri: Option<String>,
}

impl Body {
    /// The body that images themselves are, without any option.
    pub fn of_images(bytes: bytes::Bytes) -> Self {
        Self {
            inputs: vec![Input::Body(bytes)],
            model: None,
            outputs: Vec::new(),
            output_uri: None,
        }
    }

    /// The URI of a request in S3, where that is all there is to segment.
    pub fn request_object(&self) -> Option<String> {
        match &self.inputs[..] {
            [Input::S3 { uri, series_instance_uid: None }] => {
                uri.to_ascii_lowercase().ends_with(".json").then(|| uri.clone())
            }
            _ => None,
        }
    }

    /// The inputs of `inner` with the options of both; this one's hold where both say something.
    pub fn over(self, inner: Self) -> Self {
        Self {
            inputs: inner.inputs,
            model: self.model.or(inner.model),
            outputs: if self.outputs.is_empty() { inner.outputs } else { self.outputs },
            output_uri: self.output_uri.or(inner.output_uri),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    inputs: Option<Vec<Object<InputFields>>>,
    images: Option<Images>,
    datastore_id: Option<String>,
    image_set_id: Option<String>,
    version_id: Option<String>,
    #[serde(rename = "studyInstanceUID")]
    study_instance_uid: Option<String>,
    #[serde(rename = "seriesInstanceUID")]
    series_instance_uid: Option<String>,
    s3_uri: Option<String>,
    model: Option<String>,
    outputs: Option<Vec<Output>>,
    #[serde(rename = "outputS3Uri")]
    output_uri: Option<String>,
}

/// Images by name, or a list of them.
struct Images(Vec<(Option<String>, Image)>);

impl<'de> Deserialize<'de> for Images {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ImagesVisitor)
    }
}

struct ImagesVisitor;

impl<'de> Visitor<'de> for ImagesVisitor {
    type Value = Images;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of images by name or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Images, A::Error> {
        let mut images = Vec::new();
        while let Some((name, Object(set))) = map.next_entry::<String, Object<Image>>()? {
            images.push((Some(name), set));
        }
        Ok(Images(images))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Images, A::Error> {
        let mut images = Vec::new();
        while let Some(Object(set)) = list.next_element::<Object<Image>>()? {
            images.push((None, set));
        }
        Ok(Images(images))
    }
}

/// An image, or several under `images`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InputFields {
    images: Option<Images>,
    datastore_id: Option<String>,
    image_set_id: Option<String>,
    version_id: Option<String>,
    #[serde(rename = "studyInstanceUID")]
    study_instance_uid: Option<String>,
    #[serde(rename = "seriesInstanceUID")]
    series_instance_uid: Option<String>,
    s3_uri: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Image {
    datastore_id: Option<String>,
    image_set_id: Option<String>,
    version_id: Option<String>,
    #[serde(rename = "studyInstanceUID")]
    study_instance_uid: Option<String>,
    #[serde(rename = "seriesInstanceUID")]
    series_instance_uid: Option<String>,
    s3_uri: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Output {
    DicomSeg,
    Nifti,
}

/// A `T` written as a JSON object: what serde derives for a struct reads an array of its fields, too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Reads the body of a request.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`], naming the JSON path.
pub(super) fn parse(body: &[u8]) -> Result<Body> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(fields): Object<Fields> =
        serde_path_to_error::deserialize(&mut json).map_err(|e| {
            let path = e.path().to_string();
            describe(&path, e.inner())
        })?;
    json.end().map_err(|e| describe("", &e))?;

    let bare = InputFields {
        images: fields.images,
        datastore_id: fields.datastore_id,
        image_set_id: fields.image_set_id,
        version_id: fields.version_id,
        study_instance_uid: fields.study_instance_uid,
        series_instance_uid: fields.series_instance_uid,
        s3_uri: fields.s3_uri,
    };
    let (images, image) = bare.split();
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
        (Some(sets), true) if sets.is_empty() => return Err(invalid("inputs", "lists nothing")),
        (Some(sets), true) => sets
            .into_iter()
            .enumerate()
            .map(|(i, Object(fields))| {
                let (images, image) = fields.split();
                one(images, image, &format!("inputs[{i}]"))
            })
            .collect::<Result<_>>()?,
        (None, false) => vec![one(images, image, "")?],
    };
    if fields.output_uri.as_deref().is_some_and(|uri| !is_s3_uri(uri)) {
        return Err(invalid("outputS3Uri", "must be s3://BUCKET/PREFIX"));
    }
    Ok(Body {
        inputs,
        model: fields.model,
        outputs: outputs(fields.outputs)?,
        output_uri: fields.output_uri,
    })
}

impl InputFields {
    /// The fields of an image, and those of several.
    fn split(self) -> (Option<Images>, Image) {
        let image = Image {
            datastore_id: self.datastore_id,
            image_set_id: self.image_set_id,
            version_id: self.version_id,
            study_instance_uid: self.study_instance_uid,
            series_instance_uid: self.series_instance_uid,
            s3_uri: self.s3_uri,
        };
        (self.images, image)
    }
}

/// The input at `path`, which is empty for the bare form.
fn one(images: Option<Images>, image: Image, path: &str) -> Result<Input> {
    let Some(Images(images)) = images else { return image.input(path) };
    let here = below(path, "images");
    if !image.is_empty() {
        return Err(invalid(&here, "must not stand beside the fields of one image"));
    }
    if images.is_empty() {
        return Err(invalid(&here, "names nothing"));
    }
    // Names are the client's words and stay out of errors.
    let path = format!("{here}.*");
    let images = images.into_iter().map(|(name, image)| Ok((name, image.input(&path)?)));
    Ok(Input::Images(images.collect::<Result<_>>()?))
}

/// The path of a field below `path`, which may be empty.
fn below(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

impl Image {
    fn is_empty(&self) -> bool {
        let Self { datastore_id, image_set_id, version_id, .. } = self;
        let Self { study_instance_uid, series_instance_uid, s3_uri, .. } = self;
        let ids = [datastore_id, image_set_id, version_id];
        ids.iter().all(|field| field.is_none())
            && [study_instance_uid, series_instance_uid, s3_uri].iter().all(|f| f.is_none())
    }

    /// The image at `path`: in S3, a study, or an image set.
    fn input(self, path: &str) -> Result<Input> {
        let uids = [
            ("studyInstanceUID", &self.study_instance_uid),
            ("seriesInstanceUID", &self.series_instance_uid),
        ];
        for (field, uid) in uids {
            if uid.as_deref().is_some_and(|uid| !is_uid(uid)) {
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

    /// Refuses fields that say something else than `kind`.
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
        let uri = self.s3_uri.unwrap_or_default();
        if !is_s3_uri(&uri) {
            return Err(invalid(&below(path, "s3Uri"), "must be s3://BUCKET/KEY"));
        }
        Ok(Input::S3 { uri, series_instance_uid: self.series_instance_uid })
    }

    fn study(self, path: &str) -> Result<Input> {
        let others =
            [("imageSetId", self.image_set_id.is_some()), ("versionId", self.version_id.is_some())];
        Self::only(path, "studyInstanceUID", &others)?;
        let datastore_id = self.datastore_id.ok_or_else(|| missing(path, "datastoreId"))?;
        check_id(path, "datastoreId", &datastore_id)?;
        Ok(Input::Study {
            datastore_id,
            study_instance_uid: self.study_instance_uid.unwrap_or_default(),
            series_instance_uid: self.series_instance_uid,
        })
    }

    fn image_set(self, path: &str) -> Result<Input> {
        let others = [("seriesInstanceUID", self.series_instance_uid.is_some())];
        Self::only(path, "an image set, which holds one series", &others)?;
        let datastore_id = self.datastore_id.ok_or_else(|| missing(path, "datastoreId"))?;
        let image_set_id = self.image_set_id.ok_or_else(|| missing(path, "imageSetId"))?;
        check_id(path, "datastoreId", &datastore_id)?;
        check_id(path, "imageSetId", &image_set_id)?;
        if let Some(version) = &self.version_id
            && (!(1..=19).contains(&version.len()) || !version.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(invalid(&below(path, "versionId"), "must be a number as a string"));
        }
        Ok(Input::ImageSet { datastore_id, image_set_id, version_id: self.version_id })
    }
}

/// Without a path the field itself is what is missing; with one, what should have it.
fn missing(path: &str, field: &str) -> Error {
    match path {
        "" => invalid(field, "is missing"),
        path => invalid(path, &format!("has a missing field `{field}`")),
    }
}

fn check_id(path: &str, field: &str, id: &str) -> Result<()> {
    let usable = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    if id.len() == 32 && id.bytes().all(usable) {
        return Ok(());
    }
    Err(invalid(&below(path, field), "must be 32 characters of 0-9 and a-z"))
}

fn outputs(wanted: Option<Vec<Output>>) -> Result<Vec<OutputKind>> {
    let Some(wanted) = wanted else { return Ok(Vec::new()) };
    if wanted.is_empty() {
        return Err(invalid("outputs", "lists nothing; leave it out for the model's own outputs"));
    }
    let mut kinds = Vec::new();
    for (i, output) in wanted.into_iter().enumerate() {
        let kind = match output {
            Output::DicomSeg => OutputKind::DicomSeg,
            Output::Nifti => OutputKind::Nifti,
        };
        if kinds.contains(&kind) {
            return Err(invalid(&format!("outputs[{i}]"), "is there twice"));
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

/// What is wrong at `path`, in words of serde's error that do not come from the body.
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
        // The field is one of ours, and serde's path ends above it.
        format!("has {text}")
    } else if text.starts_with("missing field") {
        format!("has a {text}")
    } else {
        // Up to there the message quotes what was found.
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
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn read(body: Value) -> Result<Body> {
        parse(body.to_string().as_bytes())
    }

    #[test]
    fn both_forms_say_the_same() {
        let bare = read(json!({"datastoreId": ID, "imageSetId": ID, "versionId": "2"})).unwrap();
        let inputs = json!([{"datastoreId": ID, "imageSetId": ID, "versionId": "2"}]);
        assert_eq!(read(json!({ "inputs": inputs })).unwrap(), bare);
        assert_eq!(
            bare.inputs,
            [Input::ImageSet {
                datastore_id: ID.to_owned(),
                image_set_id: ID.to_owned(),
                version_id: Some("2".to_owned()),
            }]
        );
    }

    #[test]
    fn images_are_read_by_their_names() {
        let set = json!({"datastoreId": ID, "imageSetId": ID});
        let images = json!({"images": {"T1": set, "FLAIR": set}});
        let bare = read(images.clone()).unwrap();
        assert_eq!(read(json!({"inputs": [images]})).unwrap(), bare);
        let Input::Images(images) = &bare.inputs[0] else { panic!("{bare:?}") };
        let names: Vec<Option<&str>> = images.iter().map(|(name, _)| name.as_deref()).collect();
        assert_eq!(names, [Some("T1"), Some("FLAIR")]);
        let Input::Images(listed) = &read(json!({"images": [set, set]})).unwrap().inputs[0] else {
            panic!("one image");
        };
        assert!(listed.len() == 2 && listed.iter().all(|(name, _)| name.is_none()));
        for body in [
            json!({"images": {}}),
            json!({"images": []}),
            json!({"images": [[ID, ID]]}),
            json!({"images": "Doe^Jane"}),
            json!({"images": {"T1": set}, "datastoreId": ID}),
            json!({"inputs": [{"images": {"Doe^Jane": {"datastoreId": ID}}}]}),
            json!({"inputs": [{"images": {"Doe^Jane": {"datastoreId": ID, "imageSetId": "x"}}}]}),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{body}");
        }
    }

    #[test]
    fn studies_and_places_in_s3_are_read() {
        let uid = "1.2.840.1";
        let body = read(json!({"datastoreId": ID, "studyInstanceUID": uid})).unwrap();
        assert!(matches!(&body.inputs[0], Input::Study { series_instance_uid: None, .. }));
        let s3 = json!({"s3Uri": "s3://bucket/a.zip", "seriesInstanceUID": uid});
        let body = read(json!({"inputs": [s3], "outputs": ["nifti"]})).unwrap();
        assert!(matches!(&body.inputs[0], Input::S3 { series_instance_uid: Some(_), .. }));
        assert!(body.request_object().is_none());
        let images = read(json!({"images": {"T1": s3, "T2": {"s3Uri": "s3://bucket/b/"}}}));
        assert!(matches!(&images.unwrap().inputs[0], Input::Images(list) if list.len() == 2));
        for (body, path) in [
            (json!({"s3Uri": "https://x/Doe"}), "s3Uri"),
            (json!({"s3Uri": "s3://bucket/a", "imageSetId": ID}), "imageSetId"),
            (
                json!({"inputs": [{"s3Uri": "s3://bucket/a", "versionId": "1"}]}),
                "inputs[0].versionId",
            ),
            (json!({"studyInstanceUID": uid}), "datastoreId"),
            (json!({"datastoreId": ID, "studyInstanceUID": "Doe^Jane"}), "studyInstanceUID"),
            (json!({"datastoreId": ID, "studyInstanceUID": uid, "imageSetId": ID}), "imageSetId"),
            (
                json!({"datastoreId": ID, "imageSetId": ID, "seriesInstanceUID": uid}),
                "seriesInstanceUID",
            ),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!(error.details()["path"], path, "{body}: {error}");
            assert!(!format!("{error:?}").contains("Doe"), "{error:?}");
        }
    }

    #[test]
    fn a_request_in_s3_has_the_last_word_on_inputs_alone() {
        let outer = read(json!({"s3Uri": "s3://bucket/a.JSON", "model": "outer"})).unwrap();
        assert_eq!(outer.request_object().as_deref(), Some("s3://bucket/a.JSON"));
        let inner = json!({"datastoreId": ID, "imageSetId": ID, "model": "inner",
                           "outputS3Uri": "s3://bucket/out"});
        let both = outer.over(read(inner).unwrap());
        assert!(matches!(both.inputs[0], Input::ImageSet { .. }));
        assert_eq!(both.model.as_deref(), Some("outer"));
        assert_eq!(both.output_uri.as_deref(), Some("s3://bucket/out"));
    }

    #[test]
    fn options_are_read() {
        let body = read(json!({
            "inputs": [{"datastoreId": ID, "imageSetId": ID, "versionId": null}],
            "model": "spleen", "outputs": ["nifti", "dicom-seg"], "outputS3Uri": "s3://bucket/a",
        }))
        .unwrap();
        assert_eq!(body.model.as_deref(), Some("spleen"));
        assert_eq!(body.outputs, [OutputKind::Nifti, OutputKind::DicomSeg]);
        assert_eq!(body.output_uri.as_deref(), Some("s3://bucket/a"));
    }

    #[test]
    fn errors_name_the_path_and_no_value() {
        let set = json!({"datastoreId": ID, "imageSetId": ID});
        let with = |key: &str, value: Value| {
            let mut all = set.clone();
            all[key] = value;
            all
        };
        for (body, path) in [
            (json!({}), "inputs"),
            (json!({"inputs": []}), "inputs"),
            (json!({"inputs": "Doe^Jane"}), "inputs"),
            (json!({"inputs": [set, 7]}), "inputs[1]"),
            (json!({"inputs": [with("patient", json!("Doe^Jane"))]}), "inputs[0].patient"),
            (json!({"inputs": [with("imageSetId", json!("Doe^Jane"))]}), "inputs[0].imageSetId"),
            (json!({"inputs": [set], "datastoreId": ID, "imageSetId": ID}), "inputs"),
            (json!({"inputs": [{"datastoreId": ID}]}), "inputs[0]"),
            (json!({"datastoreId": ID}), "imageSetId"),
            (json!({"imageSetId": ID}), "datastoreId"),
            (with("versionId", json!("Doe^Jane")), "versionId"),
            (with("versionId", json!(2)), "versionId"),
            (with("model", json!({"Doe^Jane, expected x": 1})), "model"),
            (with("outputs", json!(["stl, expected Doe^Jane"])), "outputs[0]"),
            (with("outputs", json!(["nifti", "nifti"])), "outputs[1]"),
            (with("outputs", json!([])), "outputs"),
            (with("outputS3Uri", json!("file:///etc/Doe^Jane")), "outputS3Uri"),
            (with("outputS3Uri", json!("https://Doe^Jane")), "outputS3Uri"),
            (with("extra", json!("Doe^Jane")), "extra"),
            (json!(["Doe^Jane"]), "."),
            (json!("Doe^Jane"), "."),
            (json!({"inputs": [[ID, ID, null]]}), "inputs[0]"),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{body}");
            assert_eq!(error.details()["path"], path, "{body}: {error}");
            assert!(!format!("{error:?}").contains("Doe"), "{error:?}");
        }
    }

    #[test]
    fn repeated_fields_and_trailing_text_are_refused() {
        let twice = format!(r#"{{"datastoreId":"{ID}","imageSetId":"{ID}","imageSetId":"{ID}"}}"#);
        assert!(parse(twice.as_bytes()).unwrap_err().message().contains("imageSetId"));
        let trailing = format!(r#"{{"datastoreId":"{ID}","imageSetId":"{ID}"}} x"#);
        assert!(parse(trailing.as_bytes()).unwrap_err().message().contains("not JSON"));
        assert!(parse(b"{\"inputs\":").unwrap_err().message().contains("too early"));
        assert!(parse(b"").is_err() && parse(b"\xff").is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
