//! The AHI source with the real SDK over HTTP, against a stand-in that injects faults.

mod broken;
mod fake;
mod s3;
mod sink;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ahi_inference::aws::{Allowance, Patience};
use ahi_inference::dicom::{Attributes, FrameKey, Series};
use ahi_inference::error::{Error, ErrorKind};
use ahi_inference::source::ahi::{AhiClient, AhiSettings, AhiSource, ImageSetId, Operation};
use ahi_inference::source::aws::{self, AwsSettings};
use ahi_inference::source::limiter::Rate;
use ahi_inference::source::{EncodedFrame, ImageSource};
use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use dicom_dictionary_std::tags;
use futures::StreamExt;
use serde_json::json;

use fake::{DATASTORE, Failure, Fake, IMAGE_SET, frame_bytes, frame_id};

pub async fn sdk_config(settings: &AwsSettings) -> SdkConfig {
    let credentials = Credentials::from_keys("AKIDEXAMPLE", fake::SECRET_KEY, None);
    let config = aws::sdk_config(settings).await.unwrap();
    config.into_builder().credentials_provider(SharedCredentialsProvider::new(credentials)).build()
}

/// Settings with short retry delays.
fn quick() -> AhiSettings {
    AhiSettings { patience: hurried(), ..AhiSettings::default() }
}

/// A retry policy with short delays.
pub fn hurried() -> Patience {
    Patience {
        attempts: 4,
        throttled_attempts: 4,
        backoff: Duration::from_millis(2),
        max_backoff: Duration::from_millis(20),
        ..Patience::default()
    }
}

async fn client(url: &str, settings: AhiSettings) -> AhiClient {
    let aws_settings = AwsSettings {
        region: Some("eu-west-1".to_owned()),
        ahi_endpoint: Some(url.to_owned()),
        ..AwsSettings::default()
    };
    let config = sdk_config(&aws_settings).await;
    AhiClient::new(aws::ahi_client(&config, &aws_settings), settings)
}

fn source(client: &AhiClient) -> AhiSource {
    let id = ImageSetId::new(DATASTORE, IMAGE_SET).unwrap();
    AhiSource::new(client.clone(), id, None).unwrap()
}

async fn start(frames: usize, settings: AhiSettings) -> (Arc<Fake>, AhiClient) {
    let fake = Fake::start(frames).await;
    let client = client(&fake.url, settings).await;
    (fake, client)
}

fn all_keys(series: &Series) -> Vec<FrameKey> {
    (0..series.instances.len()).map(|instance| FrameKey { instance, frame: 0 }).collect()
}

async fn all_frames(source: &AhiSource, series: &Series) -> Result<Vec<EncodedFrame>, Error> {
    let frames: Vec<_> = source.frames(series, all_keys(series)).collect().await;
    frames.into_iter().collect()
}

/// Waits until neither the service nor the client has a request in flight.
async fn cancelled(fake: &Fake, client: &AhiClient) {
    let idle = async {
        while fake.busy.load(Ordering::SeqCst) > 0 || client.frames_in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), idle).await.expect("all are cancelled");
}

async fn series_error(client: &AhiClient) -> Error {
    source(client).series().await.unwrap_err()
}

#[tokio::test]
async fn an_image_set_is_read() {
    let (fake, client) = start(30, quick()).await;
    let source = source(&client);
    let series = source.series().await.unwrap();
    assert_eq!(source.version(), Some("7"));
    assert_eq!(series.series_instance_uid, "1.2.3.4");
    let dataset = &series.instances[3].dataset;
    assert_eq!(dataset.text(tags::MODALITY).as_deref(), Some("CT"));
    assert_eq!(dataset.numbers(tags::IMAGE_POSITION_PATIENT), Some([-158.1, -179.0, 3.5]));

    let mut frames = all_frames(&source, &series).await.unwrap();
    frames.sort_by_key(|f| f.key);
    assert_eq!(frames.len(), 30);
    for (i, frame) in frames.iter().enumerate() {
        assert_eq!(frame.key, FrameKey { instance: i, frame: 0 });
        assert_eq!(frame.data, frame_bytes(&frame_id(i)));
    }
    assert_eq!(fake.count("getImageSetMetadata?version=7"), 1, "the version is pinned");
    let stats = client.stats().operation(Operation::GetImageFrame);
    assert_eq!((stats.calls, stats.attempts, stats.retries, stats.bytes), (30, 30, 0, 30 * 3200));
    assert_eq!(client.frames_in_flight(), 0);
}

#[tokio::test]
async fn requests_are_signed_for_the_host_they_go_to() {
    let (fake, client) = start(1, quick()).await;
    source(&client).series().await.unwrap();
    let by_name = fake.url.replace("127.0.0.1", "localhost");
    source(&self::client(&by_name, quick()).await).series().await.unwrap();
    let (ip, name) = (&fake.url["http://".len()..], &by_name["http://".len()..]);
    assert_eq!(*fake.hosts.lock().unwrap(), [ip, ip, name, name]);
    assert_eq!(fake.bad_signatures.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn faults_that_pass_are_retried_and_counted() {
    let throttle = Failure::Refuse(429, "ThrottlingException");
    for (failure, throttles) in [
        (throttle, 2),
        (Failure::Refuse(500, "InternalServerException"), 0),
        (Failure::Refuse(503, "ServiceUnavailable"), 0),
        (Failure::Refuse(409, "ConflictException"), 0),
        (Failure::Truncate, 0),
    ] {
        for operation in Operation::ALL {
            // An image set given by its identifiers needs no search, and no lookup of its data store.
            if matches!(operation, Operation::SearchImageSets | Operation::ListDatastores) {
                continue;
            }
            let (fake, client) = start(1, quick()).await;
            let source = source(&client);
            let series = if operation == Operation::GetImageFrame {
                let series = source.series().await.unwrap();
                fake.fail([failure, failure]);
                series
            } else if operation == Operation::GetImageSetMetadata {
                fake.fail([Failure::Delay(Duration::ZERO), failure, failure]);
                source.series().await.unwrap()
            } else {
                fake.fail([failure, failure]);
                source.series().await.unwrap()
            };
            let frames = all_frames(&source, &series).await.unwrap();
            assert_eq!(frames[0].data, frame_bytes(&frame_id(0)));
            let stats = client.stats().operation(operation);
            assert_eq!((stats.calls, stats.attempts, stats.retries), (1, 3, 2), "{operation:?}");
            assert_eq!((stats.throttles, stats.failures), (throttles, 0), "{operation:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_after_some_silence() {
    let patience = Patience { silence: Duration::from_millis(300), ..hurried() };
    let settings = AhiSettings { patience, ..quick() };
    let (fake, client) = start(1, settings).await;
    let source = source(&client);
    let series = source.series().await.unwrap();
    fake.fail([Failure::Stall(Duration::from_secs(60)), Failure::Delay(Duration::from_secs(60))]);
    let started = Instant::now();
    all_frames(&source, &series).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(client.stats().operation(Operation::GetImageFrame).retries, 2);
}

#[tokio::test]
async fn faults_that_stay_are_given_up() {
    for (failure, kind) in [
        (Failure::Refuse(429, "ThrottlingException"), ErrorKind::Throttled),
        (Failure::Refuse(500, "InternalServerException"), ErrorKind::Upstream),
        (Failure::Truncate, ErrorKind::Upstream),
    ] {
        // One at a time: if two fail together, either or both may be given up.
        let (fake, client) = start(5, AhiSettings { max_in_flight: 1, ..quick() }).await;
        let source = source(&client);
        let series = source.series().await.unwrap();
        fake.fail([failure; 100]);
        let results: Vec<_> = source.frames(&series, all_keys(&series)).collect().await;
        assert_eq!(results.len(), 1, "the stream ends after the first error");
        let e = results[0].as_ref().unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.message().contains("after 4 attempts"), "{e}");
        assert!(e.details().contains_key("imageFrameId"), "{e:?}");
        let stats = client.stats().operation(Operation::GetImageFrame);
        assert_eq!((stats.calls, stats.attempts, stats.failures), (1, 4, 1));
    }
}

#[tokio::test]
async fn an_error_cancels_what_else_is_in_flight() {
    let (fake, client) = start(40, AhiSettings { max_in_flight: 8, ..quick() }).await;
    let source = source(&client);
    let series = source.series().await.unwrap();
    *fake.frame_delay.lock().unwrap() = Duration::from_secs(60);
    fake.fail([Failure::Refuse(403, "AccessDeniedException")]);
    let mut frames = source.frames(&series, all_keys(&series));
    let first = tokio::time::timeout(Duration::from_secs(5), frames.next()).await.unwrap();
    assert_eq!(first.unwrap().unwrap_err().kind(), ErrorKind::AccessDenied);
    // The stream is still held, so it is the error that cancels the requests, not the drop.
    cancelled(&fake, &client).await;
    assert!(frames.next().await.is_none());
    assert!(fake.count("getImageFrame") <= 9, "no more are begun");
}

#[tokio::test]
async fn refusals_are_not_retried_and_name_what_was_refused() {
    for (failure, kind) in [
        (Failure::Refuse(404, "ResourceNotFoundException"), ErrorKind::NotFound),
        (Failure::Refuse(403, "AccessDeniedException"), ErrorKind::AccessDenied),
        (Failure::Refuse(403, "ExpiredTokenException"), ErrorKind::Credentials),
        (Failure::Refuse(403, "UnrecognizedClientException"), ErrorKind::Credentials),
        (Failure::Refuse(400, "ValidationException"), ErrorKind::InvalidRequest),
    ] {
        let (fake, client) = start(1, quick()).await;
        fake.fail([failure]);
        let e = series_error(&client).await;
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.message().contains(DATASTORE) && e.message().contains(IMAGE_SET), "{e}");
        assert_eq!(e.details()["awsRequestId"], "request-1");
        assert_eq!(fake.count("getImageSet"), 1);
    }
}

#[tokio::test]
async fn only_readable_image_sets_are_read() {
    for (changes, readable) in [
        (json!({"imageSetState": "LOCKED", "imageSetWorkflowStatus": "UPDATING"}), false),
        (json!({"imageSetState": "DELETED", "imageSetWorkflowStatus": "DELETED"}), false),
        (json!({"isPrimary": false}), false),
        (json!({"isPrimary": null}), true),
        (
            json!({"imageSetState": "LOCKED",
                   "imageSetWorkflowStatus": "COPYING_WITH_READ_ONLY_ACCESS"}),
            true,
        ),
    ] {
        let (fake, client) = start(1, quick()).await;
        for (key, value) in changes.as_object().unwrap() {
            fake.image_set.lock().unwrap()[key] = value.clone();
        }
        let result = source(&client).series().await;
        assert_eq!(result.is_ok(), readable, "{changes}");
        if let Err(e) = result {
            assert_eq!(e.kind(), ErrorKind::ImageSetNotReady, "{e}");
            assert_eq!(fake.count("getImageSetMetadata"), 0);
        }
    }
    let (fake, client) = start(1, AhiSettings { allow_non_primary: true, ..quick() }).await;
    fake.image_set.lock().unwrap()["isPrimary"] = json!(false);
    source(&client).series().await.unwrap();
}

#[tokio::test]
async fn the_wanted_version_is_asked_for() {
    let (fake, client) = start(1, quick()).await;
    let id = ImageSetId::new(DATASTORE, IMAGE_SET).unwrap();
    let source = AhiSource::new(client.clone(), id.clone(), Some("3")).unwrap();
    source.series().await.unwrap();
    assert_eq!(fake.count("getImageSet?version=3"), 1);
    let e = AhiSource::new(client, id, Some("3&x=1")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn responses_beyond_the_limits_are_refused() {
    let (_fake, client) = start(1, AhiSettings { max_metadata_bytes: 100, ..quick() }).await;
    assert_eq!(series_error(&client).await.kind(), ErrorKind::PayloadTooLarge);

    let (fake, client) = start(1, AhiSettings { max_metadata_bytes: 100_000, ..quick() }).await;
    *fake.metadata.lock().unwrap() = fake::gzip(&vec![b' '; 10 << 20]);
    assert_eq!(series_error(&client).await.kind(), ErrorKind::PayloadTooLarge);

    let (_fake, client) = start(1, AhiSettings { max_frame_bytes: 3199, ..quick() }).await;
    let source = source(&client);
    let series = source.series().await.unwrap();
    let e = all_frames(&source, &series).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PayloadTooLarge);
}

#[tokio::test]
async fn bad_metadata_is_an_error_without_its_values() {
    let (fake, client) = start(1, quick()).await;
    let mut metadata = fake::metadata(1);
    metadata["Study"]["DICOM"] = json!("Doe^John");
    *fake.metadata.lock().unwrap() = fake::gzip(&serde_json::to_vec(&metadata).unwrap());
    let e = series_error(&client).await;
    assert_eq!(e.kind(), ErrorKind::Upstream);
    assert!(!format!("{e:?}").contains("Doe"), "{e:?}");

    let mut metadata = fake::metadata(1);
    metadata["ImageSetID"] = json!("00000000000000000000000000000000");
    *fake.metadata.lock().unwrap() = fake::gzip(&serde_json::to_vec(&metadata).unwrap());
    assert!(series_error(&client).await.message().contains("another image set"));
}

#[tokio::test]
async fn frames_in_flight_are_bounded_over_all_sources() {
    let (fake, client) = start(20, AhiSettings { max_in_flight: 5, ..quick() }).await;
    *fake.frame_delay.lock().unwrap() = Duration::from_millis(20);
    let (a, b) = (source(&client), source(&client));
    let series = a.series().await.unwrap();
    let (a, b) = tokio::join!(all_frames(&a, &series), all_frames(&b, &series));
    assert_eq!((a.unwrap().len(), b.unwrap().len()), (20, 20));
    assert_eq!(fake.busiest.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn requests_keep_to_the_rate() {
    let frame_rate = Rate { per_second: 100, burst: 5 };
    let (_fake, client) = start(25, AhiSettings { frame_rate, ..quick() }).await;
    let source = source(&client);
    let series = source.series().await.unwrap();
    let started = Instant::now();
    all_frames(&source, &series).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
}

#[tokio::test]
async fn dropping_the_stream_cancels_what_is_in_flight() {
    let (fake, client) = start(40, AhiSettings { max_in_flight: 8, ..quick() }).await;
    let source = source(&client);
    let series = source.series().await.unwrap();
    *fake.frame_delay.lock().unwrap() = Duration::from_secs(60);
    let mut frames = source.frames(&series, all_keys(&series));
    let first = tokio::time::timeout(Duration::from_millis(500), frames.next()).await;
    assert!(first.is_err(), "no frame comes");
    assert_eq!((fake.busy.load(Ordering::SeqCst), client.frames_in_flight()), (8, 8));
    drop(frames);
    cancelled(&fake, &client).await;
    assert_eq!(fake.count("getImageFrame"), 8, "and none is begun");
}

#[tokio::test]
async fn transfers_go_on_while_the_reader_is_busy() {
    let patience = Patience { attempt_timeout: Duration::from_millis(400), ..hurried() };
    let settings = AhiSettings { patience, ..quick() };
    let (fake, client) = start(8, settings).await;
    let source = source(&client);
    let series = source.series().await.unwrap();
    *fake.frame_delay.lock().unwrap() = Duration::from_millis(50);
    let mut frames = source.frames(&series, all_keys(&series));
    frames.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(frames.count().await, 7);
    let stats = client.stats().operation(Operation::GetImageFrame);
    assert_eq!((stats.attempts, stats.retries), (8, 0), "nothing timed out meanwhile");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_upstream() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = client(&url, quick()).await;
    let e = series_error(&client).await;
    assert_eq!(e.kind(), ErrorKind::Upstream, "{e}");
    assert_eq!(client.stats().operation(Operation::GetImageSet).attempts, 4);
}
