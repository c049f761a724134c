//! Stores the DICOM outputs of an input in an archive: decides whether and where, and reports the
//! result.
//!
//! If an archive cannot be reached, the request fails and may be retried. If the archive refuses an
//! instance, the request succeeds: the report gives the reason, and the output itself is in the
//! response or in S3, as without an archive ([`sink::dicomweb`](crate::sink::dicomweb) explains why). A
//! response with `Accept: application/dicom` has no room for a report, so a refusal is an error there.

use std::sync::Arc;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::OpenFileOptions;
use serde_json::{Value, json};

use crate::archive::{Archive, Store};
use crate::aws::Allowance;
use crate::error::{Error, ErrorKind, Result};
use crate::request::{Artifact, InferenceRequest, Input, InputOutcome, OutputKind};
use crate::sink::dicomweb::{DicomWeb, Instance, Outcome, Target};

/// The media type of DICOM objects.
const DICOM: &str = "application/dicom";

/// The archive for the outputs of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nowhere.
    Nowhere,
    /// In an archive.
    In(Target),
    /// The setting asks for storing, but this is not possible for this input.
    NotPossible(&'static str),
}

/// Refuses a request to store outputs that cannot be stored.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] with the field.
pub(super) fn check(request: &InferenceRequest, kinds: &[OutputKind]) -> Result<()> {
    let Store::In(archive) = &request.store else { return Ok(()) };
    if !kinds.iter().any(|kind| kind.is_dicom()) {
        let what = "archives take DICOM objects, and no output asked for is one; add \"dicom-seg\" to \
                    \"outputs\", or leave \"store\" out";
        return Err(invalid(what));
    }
    if *archive == Archive::Input
        && let Some(index) = request.inputs.iter().position(|input| datastore(input).is_none())
    {
        let what = "true stores where the input is, and an input is in no data store, or in several; name \
                    the archive: {\"datastoreId\": …} or {\"dicomweb\": …}";
        return Err(invalid(what).with("input", index));
    }
    Ok(())
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("store: {what}")).with("field", "store")
}

/// Determines the archive for the outputs of `input`, from the request or else the server's setting.
pub(super) fn plan(store: &Store, setting: Option<&Archive>, input: &Input) -> Plan {
    let archive = match store {
        Store::Nowhere => return Plan::Nowhere,
        Store::In(archive) => Some(archive),
        Store::Unsaid => setting,
    };
    match archive {
        None => Plan::Nowhere,
        Some(Archive::Datastore(id)) => Plan::In(Target::Datastore(id.clone())),
        Some(Archive::Service(url)) => Plan::In(Target::Service(url.clone())),
        Some(Archive::Input) => match datastore(input) {
            Some(id) => Plan::In(Target::Datastore(id.to_owned())),
            None => Plan::NotPossible(
                "the outputs were not stored: the setting STORE says where the input is, which is in no \
                 data store, or in several",
            ),
        },
    }
}

/// Returns the data store of all images of an input, if there is only one.
fn datastore(input: &Input) -> Option<&str> {
    match input {
        Input::ImageSet { datastore_id, .. } | Input::Study { datastore_id, .. } => {
            Some(datastore_id)
        }
        Input::S3 { .. } | Input::Body(_) => None,
        Input::Volume { of, .. } => datastore(of),
        Input::Images(images) => {
            let mut ids = images.iter().map(|(_, image)| datastore(image));
            let first = ids.next()??;
            ids.all(|id| id == Some(first)).then_some(first)
        }
    }
}

/// Stores the DICOM outputs of an outcome and adds the result to its report. Outputs that are only in
/// the archive get its URL. Returns the audit entry of each output, in order.
///
/// # Errors
/// Propagates the errors of [`DicomWeb::store`]; `Upstream` if `single` leaves no room to report a
/// refusal.
pub(super) async fn store(
    archives: &DicomWeb,
    target: &Target,
    outcome: &mut InputOutcome,
    single: bool,
    allowance: &Arc<Allowance>,
) -> Result<Vec<Option<String>>> {
    let instances: Vec<Instance> = outcome
        .artifacts
        .iter()
        .filter(|artifact| artifact.media_type == DICOM)
        .map(instance)
        .collect::<Result<_>>()?;
    if instances.is_empty() {
        // There is nothing for an archive, and nobody asked to store these outputs.
        return Ok(Vec::new());
    }
    let stored = archives.store(target, &instances, allowance).await?;
    let refused = stored.outcomes.iter().zip(&instances).find(|(o, _)| !o.status.is_there());
    if single && let Some((outcome, instance)) = refused {
        let reason = outcome.reason.as_deref().unwrap_or("it gives no reason");
        let what = format!(
            "the archive refused instance {}: {reason}; accept application/json to be given it all the same",
            instance.sop_instance_uid
        );
        let error = Error::new(ErrorKind::Upstream, what);
        return Err(error.with("sopInstanceUID", instance.sop_instance_uid.as_str()));
    }
    let mut told = instances.iter().zip(&stored.outcomes);
    let mut audit = Vec::new();
    for artifact in &mut outcome.artifacts {
        let of_this = (artifact.media_type == DICOM).then(|| told.next()).flatten();
        audit.push(of_this.map(|(_, o)| format!("{} {}", target.name(), o.status.name())));
        if let Some((instance, outcome)) = of_this
            && outcome.status.is_there()
            && artifact.uri.is_none()
        {
            artifact.uri = Some(archives.url_of(target, instance));
        }
    }
    let told = || instances.iter().zip(&stored.outcomes);
    let mut report = json!({
        "destination": target.describe(),
        "instances": told().map(|(i, o)| described(i, o)).collect::<Vec<_>>(),
    });
    if matches!(target, Target::Datastore(_)) {
        let sets = stored.image_sets.iter().map(|set| {
            json!({
                "imageSetId": set.image_set_id,
                "isPrimary": set.is_primary,
                "seriesInstanceUID": set.series_instance_uid,
            })
        });
        report["imageSets"] = sets.collect();
    }
    let mut warnings = stored.warnings.clone();
    warnings.extend(told().filter_map(|(i, o)| warning(i, o)));
    warn(outcome, warnings);
    outcome.report.insert("store".to_owned(), report);
    Ok(audit)
}

fn described(instance: &Instance, outcome: &Outcome) -> Value {
    json!({
        "sopInstanceUID": instance.sop_instance_uid,
        "seriesInstanceUID": instance.series_instance_uid,
        "kind": instance.kind,
        "status": outcome.status.name(),
        "reason": outcome.reason,
    })
}

fn warning(instance: &Instance, outcome: &Outcome) -> Option<String> {
    let reason = outcome.reason.as_deref()?;
    let uid = &instance.sop_instance_uid;
    Some(match outcome.status.is_there() {
        true => format!("the archive stored instance {uid} with a warning: {reason}"),
        false => format!("the archive did not store instance {uid}: {reason}"),
    })
}

/// Adds warnings to a report.
pub(super) fn warn(outcome: &mut InputOutcome, more: Vec<String>) {
    for warning in &more {
        tracing::warn!(warning, "storing");
    }
    let warnings = outcome.report.entry("warnings").or_insert_with(|| json!([]));
    if let Some(list) = warnings.as_array_mut() {
        list.extend(more.into_iter().map(Value::from));
    }
}

/// Reads what an archive needs to know about an output from the object itself.
fn instance(artifact: &Artifact) -> Result<Instance> {
    /// Just after SeriesInstanceUID (0020,000E): the rest is long and not needed.
    const END: Tag = Tag(0x0020, 0x0010);
    let unreadable =
        || Error::internal(format!("an output of {} is no DICOM object", artifact.kind.name()));
    let object = OpenFileOptions::new()
        .read_until(END)
        .from_reader(&artifact.bytes[..])
        .map_err(|e| unreadable().caused_by(e))?;
    let uid = |tag| {
        let value = object.get(tag).and_then(|element| element.to_str().ok());
        let uid = value.map(|text| text.trim_end_matches(['\0', ' ']).to_owned());
        uid.filter(|uid| crate::dicom::uid::is_valid(uid)).ok_or_else(unreadable)
    };
    Ok(Instance {
        kind: artifact.kind.name(),
        study_instance_uid: uid(tags::STUDY_INSTANCE_UID)?,
        series_instance_uid: uid(tags::SERIES_INSTANCE_UID)?,
        sop_instance_uid: uid(tags::SOP_INSTANCE_UID)?,
        bytes: artifact.bytes.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::ServiceUrl;
    use crate::policy::PolicyChoice;
    use crate::request::SegmentationChoice;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn image_set(id: &str) -> Input {
        Input::ImageSet {
            datastore_id: id.to_owned(),
            image_set_id: ID.to_owned(),
            version_id: None,
        }
    }

    fn request(inputs: Vec<Input>, outputs: Vec<OutputKind>, store: Store) -> InferenceRequest {
        InferenceRequest {
            request_id: "r".to_owned(),
            inference_id: None,
            inputs,
            model: None,
            outputs,
            segments: Vec::new(),
            segmentation: SegmentationChoice::default(),
            output_uri: None,
            store,
            policy: PolicyChoice::default(),
            single: false,
            trace: crate::traces::Trace::default(),
        }
    }

    #[test]
    fn requests_that_cannot_be_stored_are_refused() {
        let usual = [OutputKind::DicomSeg];
        let asked = |archive| Store::In(archive);
        let refused = |inputs, outputs, store| {
            let request = request(inputs, outputs, store);
            let kinds = super::super::kinds::of(&request.outputs, request.single, &usual);
            check(&request, &kinds).map_err(|e| e.kind())
        };
        let body = || Input::Body(bytes::Bytes::new());
        let bad = Err(ErrorKind::InvalidRequest);
        assert_eq!(refused(vec![image_set(ID)], vec![], asked(Archive::Input)), Ok(()));
        assert_eq!(
            refused(vec![image_set(ID)], vec![OutputKind::Nifti], asked(Archive::Input)),
            bad
        );
        assert_eq!(refused(vec![image_set(ID), body()], vec![], asked(Archive::Input)), bad);
        assert_eq!(refused(vec![body()], vec![], asked(Archive::Datastore(ID.to_owned()))), Ok(()));
        // Nothing was requested.
        assert_eq!(refused(vec![body()], vec![OutputKind::Nifti], Store::Unsaid), Ok(()));
        assert_eq!(refused(vec![body()], vec![OutputKind::Nifti], Store::Nowhere), Ok(()));
    }

    #[test]
    fn the_request_goes_before_the_setting() {
        let service = ServiceUrl::parse("https://archive.example/dicom-web").unwrap();
        let setting = Archive::Service(service.clone());
        let input = image_set(ID);
        let own = Plan::In(Target::Datastore(ID.to_owned()));
        assert_eq!(plan(&Store::Unsaid, None, &input), Plan::Nowhere);
        assert_eq!(
            plan(&Store::Unsaid, Some(&setting), &input),
            Plan::In(Target::Service(service))
        );
        assert_eq!(plan(&Store::Nowhere, Some(&setting), &input), Plan::Nowhere);
        assert_eq!(plan(&Store::In(Archive::Input), Some(&setting), &input), own);
        assert_eq!(plan(&Store::Unsaid, Some(&Archive::Input), &input), own);
        let body = Input::Body(bytes::Bytes::new());
        assert!(matches!(plan(&Store::Unsaid, Some(&Archive::Input), &body), Plan::NotPossible(_)));
    }

    #[test]
    fn images_have_a_data_store_in_common_or_none() {
        let images =
            |ids: &[&str]| Input::Images(ids.iter().map(|id| (None, image_set(id))).collect());
        assert_eq!(datastore(&images(&[ID, ID])), Some(ID));
        assert_eq!(datastore(&images(&[ID, "other"])), None);
        assert_eq!(datastore(&images(&[])), None);
    }
}
