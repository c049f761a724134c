//! Derives the UIDs of a result.

use crate::dicom::Series;
use crate::policy::Policy;
use crate::registry::Model;
use crate::source::Origin;
use crate::volume::Plan;
use crate::writers::dicom::Identity;

/// One image that a result was made from.
pub(super) struct Read<'a> {
    /// Its series.
    pub series: &'a Series,
    /// Its slices.
    pub plan: &'a Plan,
    /// Where it was read from.
    pub origin: Option<&'a Origin>,
}

/// Derives the identity of the result of `model` for these images: from the version of the program, the
/// model's files, the slices read and their version, and the options of the request.
pub(super) fn derived(
    model: &Model,
    images: &[Read<'_>],
    policy: &Policy,
    segments: &[String],
) -> Identity {
    let mut parts = vec![
        env!("CARGO_PKG_NAME").to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
        model.name.clone(),
        model.digest.clone(),
        format!("{policy:?}"),
        segments.join("\\"),
    ];
    for Read { series, plan, origin } in images {
        parts.push(series.study_instance_uid.clone());
        parts.push(series.series_instance_uid.clone());
        parts.push(origin.and_then(|origin| origin.version_id.clone()).unwrap_or_default());
        let slices = plan.slices.iter().filter_map(|slice| {
            let instance = series.instances.get(slice.key.instance)?;
            Some(format!("{} {}", instance.sop_instance_uid, slice.key.frame))
        });
        parts.extend(slices);
    }
    Identity::derived(parts.iter().map(String::as_str))
}
