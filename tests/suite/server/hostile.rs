//! Input that is too large, too slow, truncated or malformed.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ahi_inference::config::HttpSettings;
use proptest::prelude::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{Answer, ID, Server, Setup, body, request};

#[tokio::test]
async fn bodies_beyond_the_limit_are_413() {
    let server = Server::ready();
    let start = "POST /invocations";
    // A body at the limit is read, and then fails to parse as JSON.
    server.send(start, &[], &vec![b'x'; 100_000]).await.error(400, "invalid_request");
    for length in [100_001, 250_000, 20_000_000] {
        let sent = request(start, &[], &vec![b' '; length]);
        let mut stream = server.connect().await;
        let (mut reader, mut writer) = stream.split();
        let mut received = Vec::new();
        let (_, _) = tokio::join!(writer.write_all(&sent), reader.read_to_end(&mut received));
        // Well beyond the limit the connection closes while the client still sends. Whether it sees the answer
        // depends on its operating system.
        if length < 300_000 || !received.is_empty() {
            Answer::parse(&received).error(413, "payload_too_large");
        }
    }
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, " ".repeat(60_000));
    let chunked = format!(
        "{start} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         {chunk}{chunk}0\r\n\r\n"
    );
    Answer::parse(&server.raw(chunked.as_bytes()).await).error(413, "payload_too_large");
    assert_eq!(server.invoke(json!({})).await.status, 200);
}

#[tokio::test]
async fn a_client_that_asks_before_sending_too_much_is_told_at_once() {
    let server = Server::ready();
    let head = "POST /invocations HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n\
                Content-Length: 999999999\r\n\r\n";
    let mut stream = server.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut received = vec![0; 12];
    stream.read_exact(&mut received).await.unwrap();
    assert_eq!(received, b"HTTP/1.1 413");
}

#[tokio::test]
async fn headers_beyond_the_limits_are_refused() {
    let server = Server::ready();
    let many = "X-A: b\r\n".repeat(1000);
    let long = format!("X-A: {}\r\n", "b".repeat(2_000_000));
    for headers in [many, long] {
        let sent = format!("GET /ping HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
        let received = server.raw(sent.as_bytes()).await;
        // A connection reset may swallow the answer. If one arrives, it must be this one.
        assert!(received.is_empty() || Answer::parse(&received).status == 431);
    }
    assert_eq!(server.ping().await, 200);
}

#[tokio::test]
async fn malformed_and_unfinished_requests_harm_nobody() {
    let server = Server::ready();
    for bytes in [&b"nonsense\r\n\r\n"[..], b"GET  HTTP/9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"]
    {
        let mut stream = server.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
        assert!(received.is_empty() || Answer::parse(&received).status == 400);
    }
    let mut cut_off = server.connect().await;
    let head = "POST /invocations HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n{";
    cut_off.write_all(head.as_bytes()).await.unwrap();
    cut_off.shutdown().await.unwrap();
    let mut received = Vec::new();
    let _ = cut_off.read_to_end(&mut received).await;
    assert!(received.is_empty() || Answer::parse(&received).status == 400);
    assert_eq!(server.ping().await, 200);
}

#[tokio::test]
async fn a_body_that_never_ends_meets_the_deadline() {
    let http =
        HttpSettings { request_timeout: Some(Duration::from_millis(200)), ..Setup::default().http };
    let server = Server::start(Setup { http, ..Setup::default() });
    let mut stream = server.connect().await;
    let head = "POST /invocations HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let asked = Instant::now();
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received).await;
    Answer::parse(&received).error(504, "deadline_exceeded");
    assert!(asked.elapsed() < Duration::from_secs(5));
}

/// Returns a server shared by all cases of a property.
fn shared() -> &'static (tokio::runtime::Runtime, Server) {
    static SHARED: OnceLock<(tokio::runtime::Runtime, Server)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(async { Server::ready() });
        (runtime, server)
    })
}

fn refused_for_the_clients_fault(body: &[u8], headers: &[(&str, &str)]) -> u16 {
    let (runtime, server) = shared();
    let answer = runtime.block_on(server.send("POST /invocations", headers, body));
    assert!(answer.status == 200 || (400..500).contains(&answer.status), "{answer:?}");
    if answer.status != 200 {
        assert!(answer.json()["error"]["code"].is_string());
    }
    answer.status
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let word = prop_oneof![
        Just(ID.to_owned()),
        "[a-z]{0,4}",
        prop::sample::select(vec![
            "inputs",
            "datastoreId",
            "imageSetId",
            "versionId",
            "outputs",
            "model",
            "dicom-seg",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        word.clone().prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|v| json!(v)),
            prop::collection::vec((word.clone(), inner), 0..4)
                .prop_map(|pairs| json!(pairs.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_the_clients_fault(body in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_ne!(refused_for_the_clients_fault(&body, &[]), 200);
    }

    #[test]
    fn any_json_is_answered_or_the_clients_fault(value in any_json()) {
        refused_for_the_clients_fault(value.to_string().as_bytes(), &[]);
    }

    #[test]
    fn any_damage_to_a_good_body_is_the_clients_fault(at in 0_usize..90, byte in any::<u8>()) {
        let mut good = body(json!({})).to_string().into_bytes();
        let at = at % good.len();
        good[at] = byte;
        refused_for_the_clients_fault(&good, &[]);
    }

    #[test]
    fn any_header_text_is_the_clients_fault(text in "[ -~]{0,80}") {
        let good = body(json!({})).to_string().into_bytes();
        for name in ["Accept", "Content-Type", "X-Amzn-SageMaker-Inference-Id"] {
            refused_for_the_clients_fault(&good, &[(name, &text)]);
        }
    }
}
