//! Finds the series that an input may refer to, in any source.

use std::sync::Arc;

use super::Places;
use crate::aws::Allowance;
use crate::error::{Error, Result};
use crate::request::Input;
use crate::source::ImageSource;
use crate::source::ahi::{AhiClient, AhiSource, ImageSetId};
use crate::source::dicom_objects::{DicomSeries, of_uid};
use crate::source::s3::{Location, S3Input};

/// Finds the series that one image of a request may refer to.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`](crate::error::ErrorKind::InvalidRequest) for invalid identifiers and
/// URIs. Propagates the errors of AHI and S3.
pub async fn find(
    ahi: &AhiClient,
    s3_input: &S3Input,
    input: &Input,
    allowance: &Arc<Allowance>,
    places: &Places,
) -> Result<Vec<Box<dyn ImageSource>>> {
    let s3 = || s3_input.within(Arc::clone(allowance), Arc::clone(places));
    let ahi = ahi.within(Arc::clone(allowance));
    let image_set = |id| -> Result<Box<dyn ImageSource>> {
        Ok(Box::new(AhiSource::new(ahi.clone(), id, None)?))
    };
    match input {
        Input::ImageSet { datastore_id, image_set_id, version_id } => {
            let id = ImageSetId::new(datastore_id, image_set_id)?;
            let source = AhiSource::new(ahi.clone(), id, version_id.as_deref())?;
            Ok(vec![Box::new(source)])
        }
        Input::Study { datastore_id, study_instance_uid, series_instance_uid } => {
            let series = series_instance_uid.as_deref();
            let sets = ahi.study(datastore_id, study_instance_uid, series).await?;
            sets.into_iter().map(image_set).collect()
        }
        Input::S3 { uri, series_instance_uid } => {
            // The error does not repeat the value: S3 keys are often names of patients.
            let named = |e: Error| e.context("s3Uri").with("field", "s3Uri");
            let location = Location::parse(uri)?;
            let series = s3().series(&location).await.map_err(named)?;
            of_uid(series, series_instance_uid.as_deref()).map(boxed).map_err(named)
        }
        Input::Body(bytes) => s3().series_in(bytes.clone()).await.map(boxed),
        Input::Images(_) | Input::Volume { .. } => {
            Err(Error::internal("an image that is not a place"))
        }
    }
}

fn boxed(series: Vec<DicomSeries>) -> Vec<Box<dyn ImageSource>> {
    series.into_iter().map(|series| Box::new(series) as Box<dyn ImageSource>).collect()
}
