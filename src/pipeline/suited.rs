//! Checks whether a series suits the model, as far as its package says: by the modality of
//! `metadata.json` and, for a model of one image, the rules of `serving.json`.

use dicom_dictionary_std::tags;

use crate::dicom::{Attributes, Series};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::Mismatch;
use crate::registry::Model;

/// Checks one of the `images` of an input. Returns warnings if a series is accepted despite a mismatch.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] with the reason.
pub(super) fn check(
    model: &Model,
    images: usize,
    series: &Series,
    mismatch: Mismatch,
) -> Result<Vec<String>> {
    let reasons = [wrong_modality(model, series), against_rules(model, images, series)];
    let mut warnings = Vec::new();
    for (attribute, reason) in reasons.into_iter().flatten() {
        if mismatch == Mismatch::Refuse {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!(
                    "series {}: {reason}; the policy \"mismatch\": \"warn\" would segment it all the \
                     same",
                    series.series_instance_uid
                ),
            )
            .with("attribute", attribute)
            .with("seriesInstanceUID", series.series_instance_uid.as_str()));
        }
        warnings.push(reason);
    }
    Ok(warnings)
}

type Reason = Option<(&'static str, String)>;

/// Compares the package's modality with the series'; `None` if either is missing or unknown.
fn wrong_modality(model: &Model, series: &Series) -> Reason {
    let stated = model.bundle.config.network.inputs.first()?.modality.as_deref()?;
    let wanted = modalities(stated);
    let found = series.representative()?.dataset.text(tags::MODALITY)?;
    let found = found.to_uppercase();
    let known = KNOWN.iter().any(|(code, _)| *code == found);
    if wanted.is_empty() || wanted.contains(&found.as_str()) || !known {
        return None;
    }
    let wanted = wanted.join(" or ");
    let reason = format!(
        "its Modality is {found}, the model was made for {wanted} (configs/metadata.json, \
         network_data_format.inputs.*.modality)"
    );
    Some(("Modality", reason))
}

/// Modalities (PS3.3 C.7.3.1.1.1) and their names in packages.
const KNOWN: [(&str, &[&str]); 9] = [
    ("CT", &["CT", "CTA", "CBCT"]),
    ("MR", &["MR", "MRI", "MRA"]),
    ("PT", &["PT", "PET"]),
    ("NM", &["NM", "SPECT"]),
    ("US", &["US", "ULTRASOUND"]),
    ("MG", &["MG", "MAMMOGRAM", "MAMMOGRAPHY"]),
    ("CR", &["CR", "XRAY", "X-RAY"]),
    ("DX", &["DX", "XRAY", "X-RAY"]),
    ("XA", &["XA", "ANGIOGRAPHY"]),
];

/// Parses the modalities named by a package. The list is empty if a word is unknown, since it may mean
/// any.
fn modalities(stated: &str) -> Vec<&'static str> {
    let words = stated.split([',', '/', ';', '|', ' ', '+', '&']).map(str::trim);
    let words = words.filter(|word| !word.is_empty() && !matches!(*word, "and" | "or"));
    let mut found = Vec::new();
    for word in words {
        let word = word.to_uppercase();
        let before = found.len();
        let meant = KNOWN.iter().filter(|(_, names)| names.contains(&word.as_str()));
        found.extend(meant.map(|(code, _)| *code));
        if found.len() == before {
            return Vec::new();
        }
    }
    found
}

/// Checks the rule for a single image. Rules for several images assign the series and have been applied
/// already.
fn against_rules(model: &Model, images: usize, series: &Series) -> Reason {
    let [rule] = &model.selections[..] else { return None };
    let first = series.representative()?;
    if images > 1 || rule.matches(&first.dataset) {
        return None;
    }
    Some((
        "conditions",
        "it does not meet the conditions that the model package's serving.json has for its image"
            .to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::modalities;

    #[test]
    fn packages_have_their_own_words_for_modalities() {
        assert_eq!(modalities("MRI"), ["MR"]);
        assert_eq!(modalities("CT, mr"), ["CT", "MR"]);
        assert_eq!(modalities("Mammogram"), ["MG"]);
        assert_eq!(modalities("X-Ray"), ["CR", "DX"]);
        assert!(modalities("n/a").is_empty() && modalities("").is_empty());
        assert!(modalities("CT or whatever").is_empty());
    }
}
