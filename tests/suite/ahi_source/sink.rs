//! Outputs to S3 with the real SDK, against a stand-in that accepts `PUT`.

use std::sync::{Arc, Mutex};

use ahi_inference::aws::{Allowance, S3, S3Operation};
use ahi_inference::config::AccessSettings;
use ahi_inference::error::{Error, ErrorKind};
use ahi_inference::request::{Artifact, OutputKind};
use ahi_inference::sink::{Destination, Sink};
use ahi_inference::source::aws::{self, AwsSettings};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};

type Puts = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

async fn put(
    State(puts): State<Puts>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    match uri.path().split('/').nth(1) {
        Some("results") => {
            puts.lock().unwrap().push((format!("{method} {}", uri.path()), headers, body));
            (StatusCode::OK, "")
        }
        // Refuses one of the two outputs, and every third request.
        Some("flaky") => {
            let mut puts = puts.lock().unwrap();
            let refused = uri.path().ends_with(".nii.gz") || puts.len() % 3 == 0;
            puts.push((format!("{method} {}", uri.path()), headers, body));
            if refused {
                return (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "<Error><Code>InternalError</Code></Error>",
                );
            }
            (StatusCode::OK, "")
        }
        Some("old") => (StatusCode::BAD_REQUEST, "<Error><Code>ExpiredToken</Code></Error>"),
        Some("private") => (StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>"),
        _ => (StatusCode::NOT_FOUND, "<Error><Code>NoSuchBucket</Code></Error>"),
    }
}

async fn start() -> (Puts, S3) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = AwsSettings {
        region: Some("eu-west-1".to_owned()),
        s3_endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        s3_path_style: true,
        ..AwsSettings::default()
    };
    let puts = Puts::default();
    let app = Router::new().fallback(put).with_state(puts.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let sdk = aws::s3_client(&super::sdk_config(&settings).await, &settings);
    (puts, S3::new(sdk, super::hurried()))
}

async fn store(artifacts: &mut [Artifact], uri: &str, s3: &S3) -> Result<(), Error> {
    let sink = Sink::new(s3.clone(), &AccessSettings::default());
    sink.store(artifacts, &Destination::parse(uri)?, &Allowance::default()).await
}

fn artifact() -> Artifact {
    let bytes = Bytes::from_static(b"segmentation");
    Artifact::new(OutputKind::DicomSeg, "1.2.3.dcm".to_owned(), bytes)
}

#[tokio::test]
async fn an_output_is_put_with_type_and_checksum() {
    let (puts, s3) = start().await;
    let mut artifacts = [artifact()];
    store(&mut artifacts, "s3://results/run 1/", &s3).await.unwrap();
    assert_eq!(artifacts[0].uri.as_deref(), Some("s3://results/run 1/1.2.3.dcm"));
    let puts = puts.lock().unwrap();
    let (request, headers, body) = &puts[0];
    assert_eq!(request, "PUT /results/run%201/1.2.3.dcm");
    assert_eq!(headers["content-type"], "application/dicom");
    assert_eq!(headers["x-amz-checksum-sha256"], "+6WGvjtvFAswOJZU1UimYNOnRs+DRKtvOSSMr2Xi2k0=");
    assert!(!headers.contains_key("x-amz-server-side-encryption"));
    assert_eq!(body.as_ref(), b"segmentation");
}

#[tokio::test]
async fn an_output_is_put_with_the_key_and_owner_that_are_set() {
    let (puts, s3) = start().await;
    let settings = AccessSettings {
        output_owner: Some("123456789012".to_owned()),
        output_kms_key: Some("alias/results".to_owned()),
        ..AccessSettings::default()
    };
    let mut artifacts = [artifact()];
    let sink = Sink::new(s3, &settings);
    let to = Destination::parse("s3://results/a").unwrap();
    sink.store(&mut artifacts, &to, &Allowance::default()).await.unwrap();
    let headers = &puts.lock().unwrap()[0].1;
    assert_eq!(headers["x-amz-server-side-encryption"], "aws:kms");
    assert_eq!(headers["x-amz-server-side-encryption-aws-kms-key-id"], "alias/results");
    assert_eq!(headers["x-amz-expected-bucket-owner"], "123456789012");
}

#[tokio::test]
async fn refusals_have_their_kind_and_are_not_repeated() {
    let (_puts, s3) = start().await;
    for (bucket, kind) in [
        ("private", ErrorKind::AccessDenied),
        ("old", ErrorKind::Credentials),
        ("absent", ErrorKind::NotFound),
    ] {
        let before = s3.stats(S3Operation::PutObject).attempts;
        let mut artifacts = [artifact()];
        let e = store(&mut artifacts, &format!("s3://{bucket}/a"), &s3).await.unwrap_err();
        assert_eq!((e.kind(), artifacts[0].uri.is_none()), (kind, true), "{e}");
        assert!(e.message().contains("dicom-seg") && !e.message().contains("1.2.3"), "{e}");
        assert_eq!(e.details()["bucket"], bucket);
        assert_eq!(s3.stats(S3Operation::PutObject).attempts, before + 1);
    }
}

#[tokio::test]
async fn of_two_outputs_it_is_said_which_is_stored() {
    let (puts, s3) = start().await;
    let nifti =
        Artifact { kind: OutputKind::Nifti, file_name: "1.2.3.nii.gz".to_owned(), ..artifact() };
    let mut artifacts = [artifact(), nifti];
    let e = store(&mut artifacts, "s3://flaky/a", &s3).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Upstream);
    assert_eq!(e.details()["stored"], serde_json::json!(["dicom-seg"]), "{e:?}");
    assert_eq!(e.details()["notStored"], serde_json::json!(["nifti"]));
    assert!(e.message().contains("nifti not stored, dicom-seg stored"), "{e}");
    let puts = puts.lock().unwrap();
    assert_eq!(puts.iter().filter(|(put, ..)| put.ends_with(".nii.gz")).count(), 4);
}
