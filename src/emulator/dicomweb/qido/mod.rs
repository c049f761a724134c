//! QIDO-RS: searches for studies, series and instances (developer guide, "Searching DICOM data in
//! HealthImaging"; PS3.18 section 10.6).

mod catalogue;
mod include;
mod level;
mod matching;
mod query;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde_json::Value;

use self::level::Level;
use self::query::Search;
use super::answer;
use super::uris::Base;
use crate::dicom::uid;
use crate::emulator::failure::Failure;
use crate::emulator::service::{Answer, Shared, blocking};

/// Maximum number of records that a search finds.
const MOST_RECORDS: usize = 10_000;

type Pairs = Vec<(String, String)>;

/// `SearchDICOMStudies`.
pub(super) async fn studies(
    service: Shared,
    Path(datastore): Path<String>,
    Query(pairs): Query<Pairs>,
    headers: HeaderMap,
) -> Answer {
    run(service, datastore, Scope::new(Level::Study), pairs, headers).await
}

/// `SearchDICOMSeries`: the series of a study.
pub(super) async fn series(
    service: Shared,
    Path((datastore, study)): Path<(String, String)>,
    Query(pairs): Query<Pairs>,
    headers: HeaderMap,
) -> Answer {
    let scope = Scope { study: Some(study), ..Scope::new(Level::Series) };
    run(service, datastore, scope, pairs, headers).await
}

/// `SearchDICOMAllSeries`.
pub(super) async fn all_series(
    service: Shared,
    Path(datastore): Path<String>,
    Query(pairs): Query<Pairs>,
    headers: HeaderMap,
) -> Answer {
    run(service, datastore, Scope::new(Level::Series), pairs, headers).await
}

/// `SearchDICOMInstances`: the instances of a series.
pub(super) async fn instances(
    service: Shared,
    Path((datastore, study, series)): Path<(String, String, String)>,
    Query(pairs): Query<Pairs>,
    headers: HeaderMap,
) -> Answer {
    let scope = Scope { study: Some(study), series: Some(series), level: Level::Instance };
    run(service, datastore, scope, pairs, headers).await
}

/// `SearchDICOMStudyInstances`.
pub(super) async fn study_instances(
    service: Shared,
    Path((datastore, study)): Path<(String, String)>,
    Query(pairs): Query<Pairs>,
    headers: HeaderMap,
) -> Answer {
    let scope = Scope { study: Some(study), ..Scope::new(Level::Instance) };
    run(service, datastore, scope, pairs, headers).await
}

/// `SearchDICOMAllInstances`.
pub(super) async fn all_instances(
    service: Shared,
    Path(datastore): Path<String>,
    Query(pairs): Query<Pairs>,
    headers: HeaderMap,
) -> Answer {
    run(service, datastore, Scope::new(Level::Instance), pairs, headers).await
}

/// The level of a search, and the study and series it is limited to.
struct Scope {
    level: Level,
    study: Option<String>,
    series: Option<String>,
}

impl Scope {
    fn new(level: Level) -> Self {
        Self { level, study: None, series: None }
    }

    /// Whether the attributes of a level are returned: those of the search level, and of higher
    /// levels that the path does not name (PS3.18 tables 10.6.3-3 to 10.6.3-5).
    fn tells(&self, level: Level) -> bool {
        match level {
            Level::Study => self.level == Level::Study || self.study.is_none(),
            Level::Series => {
                self.level == Level::Series
                    || (self.level == Level::Instance && self.series.is_none())
            }
            Level::Instance => self.level == Level::Instance,
        }
    }
}

async fn run(
    State(service): Shared,
    datastore: String,
    scope: Scope,
    pairs: Pairs,
    headers: HeaderMap,
) -> Answer {
    answer::check_json(&headers)?;
    if scope.study.iter().chain(&scope.series).any(|named| !uid::is_written(named)) {
        return Err(Failure::validation("a UID in the URL is malformed"));
    }
    let search = Search::read(&pairs, scope.level)?;
    blocking(move || {
        service.datastore(&datastore)?;
        let mut rows = catalogue::rows(&service.store, &datastore, &scope, &search)?;
        rows.truncate(MOST_RECORDS);
        let base = Base::new(&headers, &datastore);
        let page = rows.iter().skip(search.offset).take(search.limit);
        let records = page
            .map(|row| include::record(row, &scope, &search, &base))
            .collect::<Result<Vec<Value>, _>>()?;
        if records.is_empty() {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        Ok(answer::dicom_json(&Value::from(records)))
    })
    .await
}
