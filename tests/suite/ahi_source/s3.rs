//! Inputs from S3 with the real SDK, against a stand-in that refuses requests.

use std::sync::Mutex;

use ahi_inference::aws::{S3, S3Operation};
use ahi_inference::memory::Pool;
use ahi_inference::source::s3::{Location, S3Input};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};

use super::*;

type Requests = Arc<Mutex<Vec<(Method, HeaderMap)>>>;

const CONTENT: &[u8] = b"{\"inputs\": []}";

/// Answers with the status named by the bucket and the error code at the start of the key. `HEAD` responses have
/// no body.
async fn answer(
    State(requests): State<Requests>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let path = uri.path().to_owned();
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (bucket, key) = (parts.next().unwrap(), parts.next().unwrap_or_default());
    let (code, _) = key.split_once('.').unwrap_or((key, ""));
    let status: u16 = bucket.trim_start_matches("status-").parse().unwrap();
    let asked = requests.lock().unwrap().iter().filter(|(m, _)| *m == method).count();
    requests.lock().unwrap().push((method.clone(), headers));
    let response = Response::builder().header("etag", "\"tag\"");
    // These objects exist: `HEAD` succeeds, though `GET` may fail.
    let there = status >= 500 || status == 412 || code == "Flaky" || status == 200;
    if method == Method::HEAD && there {
        return response.header("content-length", CONTENT.len()).body(Body::empty()).unwrap();
    }
    if status == 200 || code == "Flaky" && asked > 0 {
        return response.body(Body::from(CONTENT)).unwrap();
    }
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(format!("<Error><Code>{code}</Code></Error>"))
    };
    response.status(status).body(body).unwrap()
}

async fn start() -> (Requests, S3, S3Input) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = AwsSettings {
        region: Some("eu-west-1".to_owned()),
        s3_endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        s3_path_style: true,
        ..AwsSettings::default()
    };
    let requests = Requests::default();
    let app = Router::new().fallback(answer).with_state(requests.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let sdk = aws::s3_client(&sdk_config(&settings).await, &settings);
    let s3 = S3::new(sdk, hurried());
    let input = S3Input::new(
        s3.clone(),
        Pool::new("inputs", "MAX_INPUT_BYTES", Some(1 << 20)),
        Some("123456789012"),
    );
    (requests, s3, input)
}

#[tokio::test]
async fn refusals_are_told_apart_though_head_has_no_body() {
    for (status, code, kind) in [
        (403, "AccessDenied", ErrorKind::AccessDenied),
        (400, "ExpiredToken", ErrorKind::Credentials),
        (403, "InvalidAccessKeyId", ErrorKind::Credentials),
        (403, "RequestTimeTooSkewed", ErrorKind::Credentials),
        (403, "SignatureDoesNotMatch", ErrorKind::Credentials),
        (412, "PreconditionFailed", ErrorKind::Upstream),
        (500, "InternalError", ErrorKind::Upstream),
        (503, "SlowDown", ErrorKind::Throttled),
    ] {
        let (requests, s3, input) = start().await;
        let location = Location::parse(&format!("s3://status-{status}/{code}.json")).unwrap();
        let e = input.small_object(&location, 1000).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{code}: {e}");
        assert!(e.message().contains(code), "{e}");
        let gets = s3.stats(S3Operation::GetObject).attempts;
        let expected = match status {
            412 => 1,
            500.. => 4,
            _ => 0,
        };
        assert_eq!(gets, expected, "{code}: one layer of attempts");
        let requests = requests.lock().unwrap();
        assert!(requests.iter().all(|(_, h)| h["x-amz-expected-bucket-owner"] == "123456789012"));
    }
}

#[tokio::test]
async fn a_failure_by_chance_is_retried_once_and_whole_objects_are_read_whole() {
    let (requests, s3, input) = start().await;
    let location = Location::parse("s3://status-500/Flaky.json").unwrap();
    assert_eq!(input.small_object(&location, 1000).await.unwrap(), CONTENT);
    let stats = s3.stats(S3Operation::GetObject);
    assert_eq!((stats.calls, stats.attempts, stats.retries), (1, 2, 1));
    for (method, headers) in requests.lock().unwrap().iter() {
        if method == Method::GET {
            assert!(!headers.contains_key("range"), "so that its checksum is compared");
            assert_eq!(headers["x-amz-checksum-mode"], "ENABLED");
            assert_eq!(headers["if-match"], "\"tag\"");
        }
    }
}

/// An object that fails to parse may have been corrupted in transit, so it is fetched once more, and only once.
#[tokio::test]
async fn what_cannot_be_read_is_read_twice() {
    let (_, s3, input) = start().await;
    let location = Location::parse("s3://status-200/thing.zip").unwrap();
    let e = input.series(&location).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidRequest, "{e}");
    let stats = s3.stats(S3Operation::GetObject);
    assert_eq!((stats.calls, stats.refetches), (2, 1));
}
