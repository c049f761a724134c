//! Checks, before any call, whether a request may use the resources it names.

use crate::archive::{Archive, Store};
use crate::config::AccessSettings;
use crate::error::{Error, Result};
use crate::request::{InferenceRequest, Input};

/// Checks every input of a request and the destination of its outputs. Storing in the input's own data
/// store needs no separate check: the request names it as an input.
///
/// # Errors
/// [`ErrorKind::AccessDenied`](crate::error::ErrorKind::AccessDenied), with the field and the setting.
pub(super) fn check(access: &AccessSettings, request: &InferenceRequest) -> Result<()> {
    if let Some(uri) = &request.output_uri {
        access.check_output(uri)?;
    }
    match &request.store {
        Store::In(Archive::Datastore(id)) => access.check_datastore(id)?,
        Store::In(Archive::Service(url)) => access.check_service(url)?,
        Store::In(Archive::Input) | Store::Nowhere | Store::Unsaid => {}
    }
    for (index, input) in request.inputs.iter().enumerate() {
        check_input(access, input)
            .map_err(|e| if request.inputs.len() > 1 { e.with("input", index) } else { e })?;
    }
    Ok(())
}

fn check_input(access: &AccessSettings, input: &Input) -> Result<(), Error> {
    match input {
        Input::ImageSet { datastore_id, .. } | Input::Study { datastore_id, .. } => {
            access.check_datastore(datastore_id)
        }
        Input::S3 { uri, .. } => access.check_input(uri),
        Input::Body(_) => Ok(()),
        Input::Images(images) => {
            images.iter().try_for_each(|(_, image)| check_input(access, image))
        }
        Input::Volume { of, .. } => check_input(access, of),
    }
}
