//! Sends one request of a store, with retries, and interprets the response.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_smithy_types::body::SdkBody;

use super::answer::{Answer, JSON};
use super::client::DicomWeb;
use super::fault;
use super::http::{Head, Response};
use super::multipart::Multipart;
use super::outcome::{Instance, Outcome, Status};
use super::target::Target;
use crate::aws::call::Watch;
use crate::aws::{Allowance, Fault, Patience};
use crate::error::{Error, Result};

/// Lowest throughput of an archive in bytes per second: timeouts are extended accordingly.
const SLOWEST: u64 = 4 << 20;

/// Returns the usual lag of an archive's index behind a store.
fn settling(target: &Target) -> Duration {
    match target {
        Target::Datastore(_) => Duration::from_secs(2),
        Target::Service(_) => Duration::ZERO,
    }
}

/// Maximum size of the response to a store: a constant, plus an amount for each instance.
const ANSWER: u64 = 64 << 10;
const ANSWER_OF_ONE: u64 = 4 << 10;

impl DicomWeb {
    /// Stores a batch of one study in one request. Retries omit instances that have arrived.
    pub(super) async fn store_batch(
        &self,
        target: &Target,
        batch: &[&Instance],
        allowance: &Arc<Allowance>,
    ) -> Result<Vec<Outcome>> {
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        let url = format!("{}/studies/{}", self.base(target), first.study_instance_uid);
        let bytes: u64 = batch.iter().map(|instance| instance.bytes.len() as u64).sum();
        let work = Duration::from_secs(bytes / SLOWEST) + settling(target);
        let usual = &self.shared.patience;
        let patience = Patience {
            silence: usual.silence + work,
            attempt_timeout: usual.attempt_timeout + work,
            total: usual.total + work,
            ..usual.clone()
        };
        allowance.expect(1);
        // Whether a failed attempt may have stored some or all instances.
        let doubt = AtomicBool::new(false);
        self.call(target.store_operation(), &patience, allowance)
            .run(async |watch| {
                let there = match doubt.load(Ordering::Relaxed) {
                    true => self.arrived(target, batch, allowance).await.map_err(Fault::last)?,
                    false => HashSet::new(),
                };
                watch.progress();
                let is_there = |instance: &Instance| there.contains(&instance.sop_instance_uid);
                let missing: Vec<&Instance> =
                    batch.iter().copied().filter(|instance| !is_there(instance)).collect();
                let told = match missing.is_empty() {
                    true => Vec::new(),
                    false => {
                        doubt.store(true, Ordering::Relaxed);
                        let response = self.attempt(target, &url, &missing, &watch).await?;
                        // A refused request has stored nothing; a failed one may have.
                        doubt.store(response.status >= 500, Ordering::Relaxed);
                        read(target, target.store_operation().name(), &response, &missing)?
                    }
                };
                let mut told = told.into_iter();
                let outcome = |instance: &&Instance| match is_there(instance) {
                    true => Outcome::of(Status::Stored),
                    false => told.next().unwrap_or_else(|| Outcome::failed("it was not sent")),
                };
                Ok(batch.iter().map(outcome).collect())
            })
            .await
    }

    /// Returns the instances that are in the archive after a failed attempt, after a pause that
    /// lets HealthImaging's index catch up.
    async fn arrived(
        &self,
        target: &Target,
        batch: &[&Instance],
        allowance: &Arc<Allowance>,
    ) -> Result<HashSet<String>> {
        tokio::time::sleep(settling(target)).await;
        self.present(target, batch, allowance).await
    }

    /// Sends one request.
    async fn attempt(
        &self,
        target: &Target,
        url: &str,
        batch: &[&Instance],
        watch: &Watch,
    ) -> Result<Response, Fault> {
        let operation = target.store_operation().name();
        let multipart = Multipart::new(batch.iter().map(|instance| instance.bytes.clone()));
        let mut head = Head {
            method: "POST",
            url: url.to_owned(),
            headers: vec![
                ("accept", JSON.to_owned()),
                ("content-type", multipart.media_type()),
                ("content-length", multipart.len().to_string()),
            ],
        };
        match target {
            Target::Datastore(_) => {
                let hashed = multipart.clone();
                let sha256 = tokio::task::spawn_blocking(move || hashed.sha256()).await;
                let sha256 = sha256.map_err(|e| {
                    Fault::last(Error::internal("hashing a request was aborted").caused_by(e))
                })?;
                self.shared.settings.signer.sign(operation, &mut head, &sha256).await?;
            }
            Target::Service(url) => self.authorize(url, &mut head).await?,
        }
        watch.progress();
        let longest = ANSWER + ANSWER_OF_ONE * batch.len() as u64;
        let body = SdkBody::from_body_1_x(multipart.body(watch.clone()));
        self.shared.http.send(operation, head, body, longest, watch).await
    }
}

/// Interprets the response for the instances of a request. 200 means all were stored, 202 some, 409
/// none; some archives respond with 400 if one of several instances cannot be read.
fn read(
    target: &Target,
    operation: &'static str,
    response: &Response,
    batch: &[&Instance],
) -> Result<Vec<Outcome>, Fault> {
    let answer = Answer::parse(&response.body);
    match response.status {
        // An empty response means that everything was stored.
        200 | 204 if response.body.is_empty() => Ok(Answer::default().outcomes(batch, true)),
        status @ 200..=299 => match answer {
            Some(answer) => Ok(answer.outcomes(batch, status == 200)),
            None => Err(fault::not_understood(operation, status)),
        },
        status @ (400 | 409) => match answer {
            Some(answer) if answer.says_something() => Ok(answer.outcomes(batch, false)),
            // In HealthImaging, a conflict is with an image set that is being changed, and is
            // transient.
            _ if status == 409 && matches!(target, Target::Service(_)) => Ok(batch
                .iter()
                .map(|_| {
                    Outcome::failed("the archive refused it without a reason (http status 409)")
                })
                .collect()),
            _ => Err(fault::of(target, operation, response)),
        },
        _ => Err(fault::of(target, operation, response)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::ServiceUrl;
    use crate::aws::Retry;
    use crate::error::ErrorKind;

    fn response(status: u16, body: &str, code: Option<&str>) -> Response {
        Response { status, code: code.map(str::to_owned), body: body.to_owned().into() }
    }

    #[test]
    fn answers_are_read_by_their_status() {
        let instance = Instance {
            kind: "dicom-seg",
            study_instance_uid: "1.1".to_owned(),
            series_instance_uid: "1.2".to_owned(),
            sop_instance_uid: "1.3".to_owned(),
            bytes: bytes::Bytes::new(),
        };
        let service = Target::Service(ServiceUrl::parse("http://archive").unwrap());
        let read_as = |target: &Target, response: Response| {
            read(target, "StoreInstances", &response, &[&instance]).map(|mut all| all.remove(0))
        };
        let status = |response| read_as(&service, response).unwrap().status;
        let failed =
            r#"{"00081198":{"Value":[{"00081155":{"Value":["1.3"]},"00081197":{"Value":[272]}}]}}"#;
        assert_eq!(status(response(200, "{}", None)), Status::Stored);
        assert_eq!(status(response(204, "", None)), Status::Stored);
        assert_eq!(status(response(202, "{}", None)), Status::Failed);
        assert_eq!(status(response(409, failed, None)), Status::Failed);
        assert_eq!(status(response(400, failed, None)), Status::Failed);
        assert_eq!(status(response(409, "conflict", None)), Status::Failed);
        for (code, body) in [(200, "<html>"), (202, ""), (400, "{}"), (403, failed), (500, failed)]
        {
            let fault = read_as(&service, response(code, body, None)).unwrap_err();
            assert!(!fault.error.message().contains("html"), "{}", fault.error);
        }
        let datastore = Target::Datastore("d".repeat(32));
        let busy = response(409, "{}", Some("ConflictException"));
        let fault = read_as(&datastore, busy).unwrap_err();
        assert_eq!((fault.retry, fault.error.kind()), (Retry::Later, ErrorKind::ImageSetNotReady));
        assert_eq!(
            read_as(&datastore, response(409, failed, None)).unwrap().status,
            Status::Failed
        );
        assert!(read_as(&datastore, response(409, "", None)).is_err());
    }
}
