//! Finds the image sets of a study.

use aws_sdk_medicalimaging::types::{
    ImageSetsMetadataSummary, Operator, SearchByAttributeValue, SearchCriteria, SearchFilter,
};

use super::client::{AhiClient, ImageSetId};
use super::stats::Operation;
use crate::aws::Fault;
use crate::error::{Error, ErrorKind, Result};

/// Maximum number of image sets of one study; no patient's study has more.
const MOST: usize = 1000;

impl AhiClient {
    /// Returns the primary image sets of a study, or of one of its series, in the service's order.
    /// Includes image sets that are not primary if the settings allow them.
    ///
    /// # Errors
    /// `InvalidRequest` for a malformed data store, `NotFound` if there is no image set,
    /// `AccessDenied`, `Throttled`, `Upstream`.
    pub async fn study(
        &self,
        datastore_id: &str,
        study_instance_uid: &str,
        series_instance_uid: Option<&str>,
    ) -> Result<Vec<ImageSetId>> {
        let named = |e: Error| {
            e.context(format_args!("study {study_instance_uid} in data store {datastore_id}"))
                .with("datastoreId", datastore_id)
                .with("studyInstanceUID", study_instance_uid)
        };
        let mut found = Vec::new();
        let mut next = None;
        loop {
            let study =
                SearchByAttributeValue::DicomStudyInstanceUid(study_instance_uid.to_owned());
            let (page, token) = self.page(datastore_id, Some(study), next).await.map_err(named)?;
            found.extend(page);
            next = token;
            if next.is_none() {
                break;
            }
            if found.len() > MOST {
                let what = format!("it has more than {MOST} image sets; name one of them");
                return Err(named(Error::new(ErrorKind::InvalidRequest, what)));
            }
        }
        let wanted = |set: &ImageSetsMetadataSummary| {
            let series = set.dicom_tags().and_then(|tags| tags.dicom_series_instance_uid());
            let primary = set.is_primary() != Some(false) || self.allows_non_primary();
            primary && series_instance_uid.is_none_or(|uid| series == Some(uid))
        };
        let ids: Vec<ImageSetId> = found
            .iter()
            .filter(|set| wanted(set))
            .map(|set| ImageSetId::new(datastore_id, set.image_set_id()))
            .collect::<Result<_>>()?;
        if ids.is_empty() {
            let what = match series_instance_uid {
                Some(uid) => format!("it has no primary image set of series {uid}"),
                None => "it has no primary image set".to_owned(),
            };
            return Err(named(Error::new(ErrorKind::NotFound, what)));
        }
        Ok(ids)
    }

    /// Returns one page of the image sets that have a value, or of all, and the token of the next
    /// page.
    pub(super) async fn page(
        &self,
        datastore_id: &str,
        value: Option<SearchByAttributeValue>,
        next: Option<String>,
    ) -> Result<(Vec<ImageSetsMetadataSummary>, Option<String>)> {
        let operation = Operation::SearchImageSets;
        self.allowance().expect(1);
        let page = self
            .call(operation)
            .run(async |_| {
                let filter = value.clone().map(|value| {
                    SearchFilter::builder().values(value).operator(Operator::Equal).build()
                });
                let filter =
                    filter.transpose().map_err(|e| Fault::from_build(operation.name(), e))?;
                let criteria =
                    filter.map(|filter| SearchCriteria::builder().filters(filter).build());
                self.sdk()
                    .search_image_sets()
                    .datastore_id(datastore_id)
                    .set_search_criteria(criteria)
                    .set_next_token(next.clone())
                    .send()
                    .await
                    .map_err(|e| Fault::from_sdk(operation.name(), &e))
            })
            .await?;
        Ok((page.image_sets_metadata_summaries, page.next_token))
    }
}
