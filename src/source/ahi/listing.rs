//! Lists the content of AHI for people to choose from.

use aws_sdk_medicalimaging::types::{DatastoreStatus, ImageSetsMetadataSummary};
use serde::Serialize;

use super::client::{AhiClient, ImageSetId};
use super::stats::Operation;
use crate::aws::Fault;
use crate::error::{Error, ErrorKind, Result};

/// Limit on listed data stores: a longer list is of no use to people.
const MOST_DATASTORES: usize = 1000;

/// Limit on requested pages of data stores.
const MOST_PAGES: usize = 100;

/// Limit on displayed characters of a text.
const LONGEST_TEXT: usize = 200;

/// Maximum length of a page token that is passed on.
const LONGEST_TOKEN: usize = 8192;

/// A data store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Datastore {
    /// 32 characters of `[0-9a-z]`.
    pub datastore_id: String,
    /// The name its owner gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An image set without patient identifiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedImageSet {
    /// 32 characters of `[0-9a-z]`.
    pub image_set_id: String,
    /// Its latest version.
    pub version: Option<i32>,
    /// Whether it is the one of its series to read; absent for image sets older than the
    /// distinction.
    pub is_primary: Option<bool>,
    /// Study Description.
    pub study_description: Option<String>,
    /// Study Date, `YYYYMMDD` in DICOM.
    pub study_date: Option<String>,
    /// Modality of the series.
    pub modality: Option<String>,
    /// Body Part Examined of the series.
    pub body_part: Option<String>,
    /// Series Number.
    pub series_number: Option<i32>,
    /// Number of instances of the study.
    pub study_instances: i32,
    /// Number of series of the study.
    pub study_series: i32,
    /// Study Instance UID.
    pub study_instance_uid: Option<String>,
    /// Series Instance UID.
    pub series_instance_uid: Option<String>,
}

/// A page of the image sets of a data store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSetPage {
    /// The image sets in the service's order.
    pub image_sets: Vec<ListedImageSet>,
    /// Token for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl AhiClient {
    /// Returns the active data stores of the account in this region, 1000 at most.
    ///
    /// # Errors
    /// `AccessDenied`, `Throttled`, `Upstream`.
    pub async fn datastores(&self) -> Result<Vec<Datastore>> {
        let operation = Operation::ListDatastores;
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        // Bounds the calls, in case the service never ends the list.
        for _ in 0..MOST_PAGES {
            self.allowance().expect(1);
            let page = self
                .call(operation)
                .run(async |_| {
                    self.sdk()
                        .list_datastores()
                        .datastore_status(DatastoreStatus::Active)
                        .set_next_token(next.clone())
                        .send()
                        .await
                        .map_err(|e| Fault::from_sdk(operation.name(), &e))
                })
                .await
                .map_err(|e| e.context("the data stores cannot be listed"))?;
            let listed = page.datastore_summaries.unwrap_or_default().into_iter();
            // Skips malformed identifiers, which could not be requested.
            found.extend(listed.filter(|d| is_id(&d.datastore_id)).map(|d| Datastore {
                datastore_id: d.datastore_id,
                name: Some(text(&d.datastore_name)).filter(|name| !name.is_empty()),
            }));
            next = page.next_token;
            if next.is_none() || found.len() >= MOST_DATASTORES {
                break;
            }
        }
        found.truncate(MOST_DATASTORES);
        Ok(found)
    }

    /// Returns a page of the image sets of a data store: the first one, or the one that `next` of
    /// the previous page points to.
    ///
    /// # Errors
    /// `InvalidRequest` for a malformed data store or token, `NotFound`, `AccessDenied`, `Throttled`,
    /// `Upstream`.
    pub async fn image_sets(
        &self,
        datastore_id: &str,
        next: Option<String>,
    ) -> Result<ImageSetPage> {
        if !is_id(datastore_id) {
            let what = "datastoreId is not 32 characters of 0-9 and a-z";
            return Err(Error::new(ErrorKind::InvalidRequest, what).with("field", "datastoreId"));
        }
        if next.as_ref().is_some_and(|token| !is_token(token)) {
            let what = "next is not what the page before said";
            return Err(Error::new(ErrorKind::InvalidRequest, what).with("field", "next"));
        }
        let (page, next) = self.page(datastore_id, None, next).await.map_err(|e| {
            e.context(format_args!("data store {datastore_id}")).with("datastoreId", datastore_id)
        })?;
        let listed = page.into_iter().filter(|set| is_id(&set.image_set_id));
        Ok(ImageSetPage {
            image_sets: listed.map(ListedImageSet::of).collect(),
            next: next.filter(|token| is_token(token)),
        })
    }
}

impl ListedImageSet {
    fn of(set: ImageSetsMetadataSummary) -> Self {
        let tags = set.dicom_tags.as_ref();
        let tag = |value: Option<&str>| value.map(text).filter(|value| !value.is_empty());
        Self {
            study_description: tag(tags.and_then(|t| t.dicom_study_description())),
            study_date: tag(tags.and_then(|t| t.dicom_study_date())),
            modality: tag(tags.and_then(|t| t.dicom_series_modality())),
            body_part: tag(tags.and_then(|t| t.dicom_series_body_part())),
            series_number: tags.and_then(|t| t.dicom_series_number()),
            study_instances: tags.map_or(0, |t| t.dicom_number_of_study_related_instances()),
            study_series: tags.map_or(0, |t| t.dicom_number_of_study_related_series()),
            study_instance_uid: tag(tags.and_then(|t| t.dicom_study_instance_uid())),
            series_instance_uid: tag(tags.and_then(|t| t.dicom_series_instance_uid())),
            version: set.version,
            is_primary: set.is_primary,
            image_set_id: set.image_set_id,
        }
    }
}

fn is_id(id: &str) -> bool {
    ImageSetId::new(id, id).is_ok()
}

fn is_token(token: &str) -> bool {
    (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
}

/// Prepares a text for display: bounded, in a single line.
fn text(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_TEXT)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use aws_sdk_medicalimaging::types::DicomTags;

    use super::*;

    #[test]
    fn what_identifies_the_patient_is_left_out_and_texts_are_bounded() {
        let tags = DicomTags::builder()
            .dicom_patient_name("Doe^Jane")
            .dicom_patient_id("4711")
            .dicom_patient_birth_date("19500102")
            .dicom_accession_number("A-1")
            .dicom_study_description(format!("Abdomen\n{}", "x".repeat(500)))
            .dicom_series_modality("CT")
            .build();
        let set = ImageSetsMetadataSummary::builder()
            .image_set_id("0123456789abcdefghijklmnopqrstuv")
            .dicom_tags(tags)
            .build()
            .unwrap();
        let listed = ListedImageSet::of(set);
        assert_eq!(listed.modality.as_deref(), Some("CT"));
        let description = listed.study_description.clone().unwrap();
        assert!(description.starts_with("Abdomenxx") && description.len() == LONGEST_TEXT);
        let json = serde_json::to_string(&listed).unwrap();
        for secret in ["Doe", "4711", "1950", "A-1"] {
            assert!(!json.contains(secret), "{json}");
        }
    }

    #[test]
    fn tokens_are_bounded() {
        assert!(is_token("AAMA-EFRSURBSGh") && is_token(&"a".repeat(LONGEST_TOKEN)));
        for bad in ["", "a b", "é", &"a".repeat(LONGEST_TOKEN + 1)] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
