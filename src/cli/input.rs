//! The input of `run`: a local path, or images in S3 or AWS HealthImaging.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::clients;
use crate::aws::{Allowance, Patience, S3};
use crate::config::{AwsArgs, AwsSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Pool;
use crate::pipeline::{Places, sources};
use crate::request::{Input, is_s3_uri};
use crate::source::ahi::{AhiClient, ImageSetId};
use crate::source::s3::S3Input;
use crate::source::{ImageSource, aws, local};

/// The location of images.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder of DICOM files, a single file, or an archive.
    Path(PathBuf),
    /// `s3://BUCKET/KEY` or a prefix.
    S3(String),
    /// An image set of AWS HealthImaging.
    ImageSet {
        /// Its data store.
        datastore_id: String,
        /// The image set.
        image_set_id: String,
        /// Its version; `None` means the latest.
        version_id: Option<String>,
        /// The region, if the ARN of the image set names it.
        region: Option<String>,
    },
}

/// Omits paths and keys, which often contain patient names.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path(_) => "Path",
            Self::S3(_) => "S3",
            Self::ImageSet { .. } => "ImageSet",
        })
    }
}

/// The accepted forms of an image set.
const FORM: &str = "ahi://DATASTORE_ID/IMAGE_SET_ID[?versionId=N] or the ARN of an image set";

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text.starts_with("s3://") {
            return in_s3(text);
        }
        if let Some(rest) = text.strip_prefix("ahi://") {
            return image_set(rest, None);
        }
        if text.starts_with("arn:") {
            return by_arn(text);
        }
        match text.split_once("://") {
            Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => Err(format!(
                "{scheme}:// is not read; give a folder, a file, an archive, s3://BUCKET/KEY, or {FORM}"
            )),
            _ if text.is_empty() => Err("it is empty".to_owned()),
            _ => Ok(Self::Path(PathBuf::from(text))),
        }
    }
}

fn in_s3(text: &str) -> std::result::Result<Place, String> {
    if !is_s3_uri(text) {
        return Err("what is in S3 is s3://BUCKET/KEY or s3://BUCKET/PREFIX/".to_owned());
    }
    if text.to_ascii_lowercase().ends_with(".json") {
        return Err("requests in JSON are for `serve`; name the images themselves".to_owned());
    }
    Ok(Place::S3(text.to_owned()))
}

/// Parses `DATASTORE_ID/IMAGE_SET_ID[?versionId=N]`.
fn image_set(text: &str, region: Option<&str>) -> std::result::Result<Place, String> {
    let (ids, query) = match text.split_once('?') {
        Some((ids, query)) => (ids, Some(query)),
        None => (text, None),
    };
    let (datastore_id, image_set_id) =
        ids.split_once('/').ok_or_else(|| format!("expected {FORM}"))?;
    ImageSetId::new(datastore_id, image_set_id)
        .map_err(|e| format!("{}; expected {FORM}", e.message()))?;
    let version_id = match query.map(|query| query.split_once('=')) {
        None => None,
        Some(Some(("versionId", version))) if is_number(version) => Some(version.to_owned()),
        Some(_) => return Err(format!("only versionId=N may follow \"?\"; expected {FORM}")),
    };
    Ok(Place::ImageSet {
        datastore_id: datastore_id.to_owned(),
        image_set_id: image_set_id.to_owned(),
        version_id,
        region: region.map(str::to_owned),
    })
}

fn is_number(text: &str) -> bool {
    (1..=19).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// Parses `arn:aws:medical-imaging:REGION:ACCOUNT:datastore/ID/imageset/ID` of any partition.
fn by_arn(text: &str) -> std::result::Result<Place, String> {
    let expected = || {
        "expected arn:aws:medical-imaging:REGION:ACCOUNT:datastore/DATASTORE_ID/imageset/IMAGE_SET_ID"
            .to_owned()
    };
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [_, _, "medical-imaging", region, _, resource] = parts[..] else { return Err(expected()) };
    let ids = resource.strip_prefix("datastore/").and_then(|ids| ids.split_once("/imageset/"));
    let (datastore_id, image_set_id) = ids.ok_or_else(expected)?;
    if region.is_empty() || image_set_id.contains('?') {
        return Err(expected());
    }
    image_set(&format!("{datastore_id}/{image_set_id}"), Some(region))
}

/// Parameters for reading images.
pub(super) struct Reading<'a> {
    /// SeriesInstanceUID of the requested series, if given.
    pub series: Option<String>,
    /// Settings of AWS access.
    pub aws: AwsArgs,
    /// Pool charged for the memory of archives and S3 objects.
    pub memory: &'a Arc<Pool>,
    /// Limits retries and hedged calls.
    pub allowance: &'a Arc<Allowance>,
    /// Held by reading threads.
    pub places: &'a Places,
}

/// Finds the series at `place` and returns a source for each.
///
/// # Errors
/// Propagates the errors of reading them; [`ErrorKind::InvalidRequest`] if a series is named for an
/// image set, which holds a single one; [`ErrorKind::Configuration`] if regions contradict each
/// other.
pub(super) async fn find(place: Place, reading: Reading<'_>) -> Result<Vec<Box<dyn ImageSource>>> {
    let Reading { series, mut aws, memory, allowance, places } = reading;
    let input = match place {
        Place::Path(path) => return local::find(&path, series.as_deref(), memory).await,
        Place::S3(uri) => Input::S3 { uri, series_instance_uid: series },
        Place::ImageSet { .. } if series.is_some() => {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "an image set holds one series; leave out --series (SERIES_INSTANCE_UID)",
            ));
        }
        Place::ImageSet { datastore_id, image_set_id, version_id, region } => {
            aws.ahi.region = one_region(aws.ahi.region, region)?;
            Input::ImageSet { datastore_id, image_set_id, version_id }
        }
    };
    let (ahi, s3) = services(aws.settings()?, memory).await?;
    sources::find(&ahi, &s3, &input, allowance, places).await
}

fn one_region(set: Option<String>, of_arn: Option<String>) -> Result<Option<String>> {
    match (set, of_arn) {
        (Some(set), Some(named)) if set != named => Err(Error::new(
            ErrorKind::Configuration,
            format!("the image set is in {named} by its ARN, and --region (AWS_REGION) says {set}"),
        )),
        (set, named) => Ok(named.or(set)),
    }
}

async fn services(settings: AwsSettings, memory: &Arc<Pool>) -> Result<(AhiClient, S3Input)> {
    let clients = clients::settings(&settings);
    let config = aws::sdk_config(&clients).await?;
    let ahi =
        AhiClient::new(aws::ahi_client(&config, &clients), clients::ahi_settings(&settings.ahi));
    let s3 = S3::new(aws::s3_client(&config, &clients), Patience::default());
    Ok((ahi, S3Input::new(s3, Arc::clone(memory), None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATASTORE: &str = "0123456789abcdef0123456789abcdef";
    const SET: &str = "fedcba9876543210fedcba9876543210";

    fn set(version: Option<&str>, region: Option<&str>) -> Place {
        Place::ImageSet {
            datastore_id: DATASTORE.to_owned(),
            image_set_id: SET.to_owned(),
            version_id: version.map(str::to_owned),
            region: region.map(str::to_owned),
        }
    }

    #[test]
    fn places_are_told_by_their_form() {
        let path = |text: &str| Place::Path(PathBuf::from(text));
        for text in ["ct", "./ct.zip", "/data/Doe^Jane/1.dcm", "a:b", "datastore/x"] {
            assert!(text.parse::<Place>().unwrap() == path(text), "{text}");
        }
        assert!(
            "s3://bucket/a/b c.zip".parse::<Place>().unwrap()
                == Place::S3("s3://bucket/a/b c.zip".to_owned())
        );
        let uri = format!("ahi://{DATASTORE}/{SET}");
        assert!(uri.parse::<Place>().unwrap() == set(None, None));
        assert!(format!("{uri}?versionId=3").parse::<Place>().unwrap() == set(Some("3"), None));
        for partition in ["aws", "aws-cn", "aws-us-gov"] {
            let arn = format!(
                "arn:{partition}:medical-imaging:eu-west-1:123456789012:datastore/{DATASTORE}/imageset/{SET}"
            );
            assert!(arn.parse::<Place>().unwrap() == set(None, Some("eu-west-1")));
        }
    }

    #[test]
    fn malformed_places_say_what_is_expected() {
        let id = DATASTORE;
        for (text, says) in [
            (String::new(), "empty"),
            ("https://host/ct.zip".to_owned(), "https:// is not read"),
            ("s3://B/x".to_owned(), "s3://BUCKET/KEY"),
            ("s3://bucket/request.JSON".to_owned(), "name the images"),
            (format!("ahi://{id}"), "IMAGE_SET_ID"),
            (format!("ahi://{id}/{SET}x"), "imageSetId"),
            (format!("ahi://../{SET}"), "datastoreId"),
            (format!("ahi://{id}/{SET}?versionId="), "versionId=N"),
            (format!("ahi://{id}/{SET}?versionId=1&x=2"), "versionId=N"),
            (format!("ahi://{id}/{SET}?version=1"), "versionId=N"),
            (format!("arn:aws:s3:::bucket/{id}"), "medical-imaging"),
            (format!("arn:aws:medical-imaging:us-east-1:1:datastore/{id}"), "imageset"),
            (
                format!(
                    "arn:aws:medical-imaging:us-east-1:1:datastore/{id}/imageset/{SET}?versionId=1"
                ),
                "imageset",
            ),
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn an_arn_names_the_region() {
        let region = |set: Option<&str>, named: Option<&str>| {
            one_region(set.map(str::to_owned), named.map(str::to_owned))
        };
        assert_eq!(region(None, Some("a")).unwrap().as_deref(), Some("a"));
        assert_eq!(region(Some("b"), None).unwrap().as_deref(), Some("b"));
        assert_eq!(region(Some("a"), Some("b")).unwrap_err().kind(), ErrorKind::Configuration);
    }
}
