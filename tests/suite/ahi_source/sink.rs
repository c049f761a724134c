//! Outputs to S3 over the real SDK against a stand-in that takes `PUT`.

use std::sync::{Arc, Mutex};

use ahi_inference::error::ErrorKind;
use ahi_inference::request::{Artifact, OutputKind};
use ahi_inference::source::aws::{self, AwsSettings};
use ahi_inference::writers::sink::store;
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
        Some("private") => (StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>"),
        _ => (StatusCode::NOT_FOUND, "<Error><Code>NoSuchBucket</Code></Error>"),
    }
}

async fn start() -> (Puts, aws_sdk_s3::Client) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = AwsSettings {
        region: Some("eu-west-1".to_owned()),
        s3_endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        s3_path_style: true,
        max_attempts: 1,
        ..AwsSettings::default()
    };
    let puts = Puts::default();
    let app = Router::new().fallback(put).with_state(puts.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (puts, aws::s3_client(&super::sdk_config(&settings).await, &settings))
}

fn artifact() -> Artifact {
    Artifact {
        kind: OutputKind::DicomSeg,
        media_type: "application/dicom",
        file_name: "1.2.3.dcm".to_owned(),
        bytes: Bytes::from_static(b"segmentation"),
        uri: None,
    }
}

#[tokio::test]
async fn an_output_is_put_with_type_and_checksum() {
    let (puts, s3) = start().await;
    let mut artifact = artifact();
    store(&mut artifact, "s3://results/run 1/", Some(&s3)).await.unwrap();
    assert_eq!(artifact.uri.as_deref(), Some("s3://results/run 1/1.2.3.dcm"));
    let puts = puts.lock().unwrap();
    let (request, headers, body) = &puts[0];
    assert_eq!(request, "PUT /results/run%201/1.2.3.dcm");
    assert_eq!(headers["content-type"], "application/dicom");
    assert_eq!(headers["x-amz-checksum-sha256"], "+6WGvjtvFAswOJZU1UimYNOnRs+DRKtvOSSMr2Xi2k0=");
    assert_eq!(body.as_ref(), b"segmentation");
}

#[tokio::test]
async fn refusals_have_their_kind_and_name_the_object() {
    let (_puts, s3) = start().await;
    for (bucket, kind) in [("private", ErrorKind::AccessDenied), ("absent", ErrorKind::NotFound)] {
        let mut artifact = artifact();
        let uri = format!("s3://{bucket}/a");
        let e = store(&mut artifact, &uri, Some(&s3)).await.unwrap_err();
        assert_eq!((e.kind(), artifact.uri.is_none()), (kind, true), "{e}");
        assert!(e.message().contains(&format!("{uri}/1.2.3.dcm")), "{e}");
    }
}
