//! A request's body read: `{"inputs":[{…}]}` or a bare input.

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::request::{Input, OutputKind};

/// What the body says.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// At least one.
    pub inputs: Vec<Input>,
    /// `model`.
    pub model: Option<String>,
    /// `outputs`.
    pub outputs: Vec<OutputKind>,
    /// `outputS3Uri`.
    pub output_uri: Option<String>,
}

/// Inputs in one request at most.
const MOST_INPUTS: usize = 64;

/// Reads a body; errors are [`ErrorKind::InvalidRequest`] and name the JSON path at fault.
pub fn parse(bytes: &[u8]) -> Result<Body> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| {
        Error::new(ErrorKind::InvalidRequest, format!("the body is not valid JSON: {e}"))
    })?;
    let Value::Object(map) = value else {
        return Err(invalid("", "the body must be a JSON object"));
    };
    let mut fields = Fields { map, path: String::new() };
    let model = fields.text("model")?;
    let output_uri = fields.text("outputS3Uri")?;
    if let Some(uri) = &output_uri
        && !uri.starts_with("s3://")
    {
        return Err(invalid("outputS3Uri", "must begin with s3://"));
    }
    let outputs = fields.outputs()?;
    let inputs = match fields.map.remove("inputs") {
        Some(Value::Array(list)) => {
            fields.finish()?;
            read_inputs(list)?
        }
        Some(_) => return Err(invalid("inputs", "must be an array of objects")),
        None => vec![read_input(fields)?],
    };
    Ok(Body { inputs, model, outputs, output_uri })
}

fn read_inputs(list: Vec<Value>) -> Result<Vec<Input>> {
    if list.is_empty() || list.len() > MOST_INPUTS {
        return Err(invalid("inputs", &format!("must have 1 to {MOST_INPUTS} elements")));
    }
    list.into_iter()
        .enumerate()
        .map(|(index, value)| {
            let path = format!("inputs[{index}]");
            match value {
                Value::Object(map) => read_input(Fields { map, path }),
                _ => Err(invalid(&path, "must be an object")),
            }
        })
        .collect()
}

fn read_input(mut fields: Fields) -> Result<Input> {
    let datastore_id = fields.identifier("datastoreId")?;
    let image_set_id = fields.identifier("imageSetId")?;
    let version_id = fields.text("versionId")?;
    fields.finish()?;
    Ok(Input::ImageSet { datastore_id, image_set_id, version_id })
}

/// The fields of one object, taken out one by one.
struct Fields {
    map: Map<String, Value>,
    path: String,
}

impl Fields {
    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) if !s.trim().is_empty() => Ok(Some(s)),
            Some(_) => Err(invalid(&self.at(name), "must be a string that is not empty")),
        }
    }

    /// 32 characters of `[0-9a-z]`, as AHI's identifiers are.
    fn identifier(&mut self, name: &str) -> Result<String> {
        let at = self.at(name);
        let Some(text) = self.text(name)? else {
            return Err(invalid(
                &at,
                "is missing; a request names datastoreId and imageSetId, in inputs or by itself",
            ));
        };
        let valid = text.len() == 32
            && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        if valid { Ok(text) } else { Err(invalid(&at, "must be 32 characters of 0-9 and a-z")) }
    }

    fn outputs(&mut self) -> Result<Vec<OutputKind>> {
        let list = match self.map.remove("outputs") {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(invalid("outputs", "must be an array of strings")),
        };
        let mut kinds: Vec<OutputKind> = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            let kind = serde_json::from_value(value).map_err(|_| {
                invalid(&format!("outputs[{index}]"), "must be one of: dicom-seg, nifti")
            })?;
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        Ok(kinds)
    }

    fn finish(self) -> Result<()> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => Err(invalid(&self.at(name), "is not a field that is known here")),
        }
    }
}

fn invalid(path: &str, what: &str) -> Error {
    let message = if path.is_empty() { what.to_owned() } else { format!("{path} {what}") };
    Error::new(ErrorKind::InvalidRequest, message).with("path", path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "12345678901234567890123456789012";
    const B: &str = "abcdefghabcdefghabcdefghabcdefgh";

    #[test]
    fn both_forms() {
        let bare = parse(format!(r#"{{"datastoreId":"{A}","imageSetId":"{B}"}}"#).as_bytes());
        let list = parse(
            format!(r#"{{"inputs":[{{"datastoreId":"{A}","imageSetId":"{B}"}}]}}"#).as_bytes(),
        );
        assert_eq!(bare.unwrap(), list.unwrap());
        let full = parse(
            format!(
                r#"{{"inputs":[{{"datastoreId":"{A}","imageSetId":"{B}","versionId":"3"}}],
                "model":"spleen","outputs":["nifti","dicom-seg"],"outputS3Uri":"s3://b/p"}}"#
            )
            .as_bytes(),
        )
        .unwrap();
        assert_eq!(full.model.as_deref(), Some("spleen"));
        assert_eq!(full.outputs, [OutputKind::Nifti, OutputKind::DicomSeg]);
    }

    #[test]
    fn faults_are_named() {
        for (body, path) in [
            ("[]".to_owned(), ""),
            ("{}".to_owned(), "datastoreId"),
            (r#"{"inputs":[]}"#.to_owned(), "inputs"),
            (r#"{"inputs":[1]}"#.to_owned(), "inputs[0]"),
            (format!(r#"{{"inputs":[{{"datastoreId":"{A}"}}]}}"#), "inputs[0].imageSetId"),
            (format!(r#"{{"datastoreId":"{A}","imageSetId":"../x"}}"#), "imageSetId"),
            (format!(r#"{{"datastoreId":"{A}","imageSetId":"{B}","patient":1}}"#), "patient"),
            (r#"{"inputs":[{}],"outputs":["stl"]}"#.to_owned(), "outputs[0]"),
            (r#"{"outputS3Uri":"/etc"}"#.to_owned(), "outputS3Uri"),
        ] {
            let e = parse(body.as_bytes()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidRequest, "{body}");
            assert_eq!(e.details()["path"], path, "{body}: {e}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(e) = parse(&bytes) {
                prop_assert_eq!(e.kind(), ErrorKind::InvalidRequest);
            }
        }
    }
}
