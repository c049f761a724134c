//! A stand-in for AHI's three read operations that fails on demand, and verifies the signature of every request
//! against the host it was sent to.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use futures::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const DATASTORE: &str = "12345678901234567890123456789012";
pub const IMAGE_SET: &str = "abcdefabcdefabcdefabcdefabcdefab";
pub const SECRET_KEY: &str = "secret";

/// How a request fails.
#[derive(Clone, Copy)]
pub enum Failure {
    /// Returns an error response in AHI's format.
    Refuse(u16, &'static str),
    /// Sends half of the body, then breaks the connection.
    Truncate,
    /// Sends half of the body, stalls for this long, then breaks the connection.
    Stall(Duration),
    /// Waits this long before it answers.
    Delay(Duration),
    /// Flips this bit of the body.
    Flip(usize),
    /// Appends this many bytes to the body.
    TooLong(usize),
}

pub struct Fake {
    pub url: String,
    pub failures: Mutex<VecDeque<Failure>>,
    /// How long each frame takes.
    pub frame_delay: Mutex<Duration>,
    pub image_set: Mutex<Value>,
    pub metadata: Mutex<Vec<u8>>,
    pub requests: Mutex<Vec<String>>,
    pub hosts: Mutex<Vec<String>>,
    pub busy: AtomicUsize,
    pub busiest: AtomicUsize,
    pub bad_signatures: AtomicUsize,
}

impl Fake {
    /// Starts a stand-in with an image set of `frames` instances of one frame each.
    pub async fn start(frames: usize) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Arc::new(Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            failures: Mutex::default(),
            frame_delay: Mutex::default(),
            image_set: Mutex::new(json!({
                "datastoreId": DATASTORE, "imageSetId": IMAGE_SET, "versionId": "7",
                "imageSetState": "ACTIVE", "imageSetWorkflowStatus": "CREATED", "isPrimary": true,
                "createdAt": 1_700_000_000.5, "updatedAt": 1_700_000_000.5,
            })),
            metadata: Mutex::new(gzip(&serde_json::to_vec(&metadata(frames)).unwrap())),
            requests: Mutex::default(),
            hosts: Mutex::default(),
            busy: AtomicUsize::new(0),
            busiest: AtomicUsize::new(0),
            bad_signatures: AtomicUsize::new(0),
        });
        let app = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        fake
    }

    pub fn fail(&self, failures: impl IntoIterator<Item = Failure>) {
        self.failures.lock().unwrap().extend(failures);
    }

    pub fn count(&self, operation: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|r| r.contains(operation)).count()
    }
}

/// Counts requests in flight. A dropped response is no longer counted.
struct Busy(Arc<Fake>);

impl Busy {
    fn new(fake: Arc<Fake>) -> Self {
        let now = fake.busy.fetch_add(1, Ordering::SeqCst) + 1;
        fake.busiest.fetch_max(now, Ordering::SeqCst);
        Self(fake)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(
    State(fake): State<Arc<Fake>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let busy = Busy::new(fake.clone());
    fake.requests.lock().unwrap().push(format!("{method} {uri}"));
    fake.hosts.lock().unwrap().push(headers["host"].to_str().unwrap().to_owned());
    if !signature_holds(&method, &uri, &headers, &body) {
        fake.bad_signatures.fetch_add(1, Ordering::SeqCst);
        return refuse(403, "InvalidSignatureException");
    }
    let failure = fake.failures.lock().unwrap().pop_front();
    match failure {
        Some(Failure::Refuse(status, code)) => return refuse(status, code),
        Some(Failure::Delay(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    let prefix = format!("/datastore/{DATASTORE}/imageSet/{IMAGE_SET}/");
    let response = Response::builder();
    let (response, content) = match uri.path().strip_prefix(&prefix) {
        Some("getImageSet") => (
            response.header("content-type", "application/json"),
            fake.image_set.lock().unwrap().to_string().into_bytes(),
        ),
        Some("getImageSetMetadata") => (
            response.header("content-type", "text/plain").header("content-encoding", "gzip"),
            fake.metadata.lock().unwrap().clone(),
        ),
        Some("getImageFrame") => {
            let delay = *fake.frame_delay.lock().unwrap();
            tokio::time::sleep(delay).await;
            let body: Value = serde_json::from_slice(&body).unwrap();
            let frame = frame_bytes(body["imageFrameId"].as_str().unwrap());
            (response.header("content-type", "image/jph"), frame)
        }
        _ => return refuse(404, "ResourceNotFoundException"),
    };
    let content = match failure {
        Some(Failure::Flip(bit)) => flipped(content, bit),
        Some(Failure::TooLong(more)) => [content, vec![0; more]].concat(),
        _ => content,
    };
    let half = Bytes::copy_from_slice(&content[..content.len() / 2]);
    let stop = match failure {
        Some(Failure::Truncate) => Duration::ZERO,
        Some(Failure::Stall(time)) => time,
        _ => return response.body(Body::from(content)).unwrap(),
    };
    let rest = futures::stream::once(async move {
        tokio::time::sleep(stop).await;
        drop(busy);
        Err(std::io::Error::other("broken off"))
    });
    let body = futures::stream::iter([Ok(half)]).chain(rest);
    response.header("content-length", content.len()).body(Body::from_stream(body)).unwrap()
}

fn flipped(mut content: Vec<u8>, bit: usize) -> Vec<u8> {
    content[bit / 8] ^= 1 << (bit % 8);
    content
}

fn refuse(status: u16, code: &str) -> Response<Body> {
    Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header("x-amzn-errortype", format!("{code}:"))
        .header("x-amzn-requestid", "request-1")
        .body(Body::from(json!({"message": "because"}).to_string()))
        .unwrap()
}

pub fn frame_id(i: usize) -> String {
    format!("{i:032}")
}

/// Returns a frame's bytes: its identifier repeated, so that a mix-up shows.
pub fn frame_bytes(id: &str) -> Vec<u8> {
    id.repeat(100).into_bytes()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

/// Returns metadata in AHI's format, with its padded strings, nulls, private attributes and sequences.
pub fn metadata(frames: usize) -> Value {
    let instances: serde_json::Map<String, Value> = (0..frames)
        .map(|i| {
            let uid = format!("1.2.3.4.{i}");
            let instance = json!({
                "DICOM": {
                    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SOPInstanceUID": uid,
                    "InstanceNumber": format!("{i} "), "RescaleIntercept": "-1000 ",
                    "ImagePositionPatient": ["-158.1 ", "-179.0", format!("{i}.50")],
                    "SliceLocation": null, "Rows": 512, "Columns": 512,
                    "00090010": "ACME", "00091001": "12.5 ",
                    "ReferencedImageSequence": [{"ReferencedSOPInstanceUID": "1.2.9"}],
                },
                "DICOMVRs": {"00091001": "DS"},
                "StoredTransferSyntaxUID": "1.2.840.10008.1.2.4.202",
                "ImageFrames": [{
                    "ID": frame_id(i), "MinPixelValue": -1000, "MaxPixelValue": 2000,
                    "FrameSizeInBytes": 3200,
                    "PixelDataChecksumFromBaseToFullResolution":
                        [{"Width": 512, "Height": 512, "Checksum": 42}],
                }],
            });
            (uid, instance)
        })
        .collect();
    json!({
        "SchemaVersion": "1.1", "DatastoreID": DATASTORE, "ImageSetID": IMAGE_SET,
        "Patient": {"DICOM": {"PatientName": "Doe^John", "PatientBirthDate": null}},
        "Study": {
            "DICOM": {"StudyInstanceUID": "1.2.3", "StudyDate": "20200101"},
            "Series": {"1.2.3.4": {
                "DICOM": {"SeriesInstanceUID": "1.2.3.4", "Modality": "CT "},
                "Instances": instances,
            }},
        },
    })
}

/// Verifies the Signature Version 4 of a request as it arrived, host header included.
fn signature_holds(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> bool {
    let Some(authorization) = headers.get("authorization").and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let part = |name: &str| {
        let rest = authorization.split_once(&format!("{name}=")).unwrap().1;
        rest.split(',').next().unwrap()
    };
    let signed = part("SignedHeaders");
    assert!(signed.split(';').any(|h| h == "host"), "the host is signed");
    let canonical_headers: String = signed
        .split(';')
        .map(|name| format!("{name}:{}\n", headers[name].to_str().unwrap().trim()))
        .collect();
    let canonical = format!(
        "{method}\n{}\n{}\n{canonical_headers}\n{signed}\n{}",
        uri.path(),
        uri.query().unwrap_or(""),
        hex(&Sha256::digest(body)),
    );
    let scope = part("Credential").split_once('/').unwrap().1;
    let date = headers["x-amz-date"].to_str().unwrap();
    let hash = hex(&Sha256::digest(canonical));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
    let key = scope
        .split('/')
        .fold(format!("AWS4{SECRET_KEY}").into_bytes(), |key, part| hmac(&key, part.as_bytes()));
    hex(&hmac(&key, to_sign.as_bytes())) == part("Signature")
}

/// HMAC-SHA256 (RFC 2104) with keys of at most one block.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
