//! Clients that hold on to connections, uploads and responses, and the capacity left for others.

use std::time::{Duration, Instant};

use ahi_inference::config::{AdmissionSettings, ConnectionSettings, HttpSettings, Pace};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::harness::{Answer, Server, Setup, body, request};

const LONG: Duration = Duration::from_secs(10);

fn server(connections: ConnectionSettings, change: impl FnOnce(&mut Setup)) -> Server {
    let http = HttpSettings { connections, ..Setup::default().http };
    let mut setup = Setup { http, ..Setup::default() };
    change(&mut setup);
    let server = Server::start(setup);
    server.readiness.started(true);
    server
}

/// Returns the value of a metric, written with its labels.
async fn metric(server: &Server, name: &str) -> f64 {
    let text = server.send("GET /metrics", &[], b"").await.body;
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

async fn eventually_metric(server: &Server, name: &str, expected: f64) {
    let started = Instant::now();
    loop {
        let value = metric(server, name).await;
        if value == expected {
            return;
        }
        assert!(started.elapsed() < LONG, "{name} is {value}, not {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads until the server closes the connection. Fails if it never does.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut received)).await;
    assert!(read.is_ok(), "the server keeps the connection");
    received
}

async fn begin(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = server.connect().await;
    stream.write_all(bytes).await.unwrap();
    stream
}

fn upload(length: usize) -> String {
    format!("POST /invocations HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test]
async fn half_sent_headers_by_the_hundred_keep_nobody_waiting() {
    let server = server(ConnectionSettings { most: 40, ..Default::default() }, |_| {});
    let mut half = Vec::new();
    for _ in 0..300 {
        half.push(begin(&server, b"GET /ping HTTP/1.1\r\nHost: te").await);
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let asked = Instant::now();
        assert_eq!(server.ping().await, 200);
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(server.invoke(json!({})).await.status, 200);
    assert!(metric(&server, "ahi_inference_connections").await <= 41.0);
    let ended = metric(&server, "ahi_inference_connections_ended_total{reason=\"bound\"}").await;
    assert!(ended >= 260.0, "{ended}");
}

#[tokio::test]
async fn headers_have_their_time_and_idle_connections_theirs() {
    let connections = ConnectionSettings {
        header_timeout: Duration::from_millis(150),
        keep_alive_timeout: Duration::from_millis(400),
        ..Default::default()
    };
    let server = server(connections, |_| {});
    let mut silent = server.connect().await;
    let mut half = begin(&server, b"GET /ping HTTP/1.1\r\nHost: te").await;
    assert!(rest(&mut silent).await.is_empty());
    assert!(rest(&mut half).await.is_empty());
    let mut idle = begin(&server, b"GET /ping HTTP/1.1\r\nHost: test\r\n\r\n").await;
    // Answered, kept alive for a while, and closed.
    assert_eq!(Answer::parse(&rest(&mut idle).await).status, 200);
    // A second request that is never finished is subject to the header timeout.
    let two = b"GET /ping HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut second = begin(&server, two).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    second.write_all(b"GET /pi").await.unwrap();
    assert_eq!(Answer::parse(&rest(&mut second).await).status, 200);
    assert!(
        metric(&server, "ahi_inference_connections_ended_total{reason=\"headers\"}").await > 2.0
    );
    // A request that takes longer than both timeouts is still answered.
    assert_eq!(server.invoke(json!({"model": "slow-900"})).await.status, 200);
}

#[tokio::test]
async fn where_every_connection_is_busy_probes_are_answered_and_others_told_to_come_again() {
    let server = server(ConnectionSettings { most: 2, ..Default::default() }, |_| {});
    let slow = body(json!({"model": "slow-2000"})).to_string();
    let slow = request("POST /invocations", &[], slow.as_bytes());
    let mut busy = [begin(&server, &slow).await, begin(&server, &slow).await];
    super::harness::eventually("started", || {
        server.stand_in.started.load(std::sync::atomic::Ordering::SeqCst) == 2
    })
    .await;
    for _ in 0..100 {
        assert_eq!(server.ping().await, 200);
    }
    assert_eq!(server.send("GET /metrics", &[], b"").await.status, 200);
    let keep = b"GET /ping HTTP/1.1\r\nHost: test\r\n\r\n";
    let answer = Answer::parse(&rest(&mut begin(&server, keep).await).await);
    assert_eq!(answer.headers["connection"], "close", "a probe leaves the reserve");
    let refused = server.invoke(json!({})).await;
    let message = refused.error(503, "overloaded");
    assert!(message.contains("MAX_CONNECTIONS") && refused.headers.contains_key("retry-after"));
    server.send("POST /ping", &[], b"").await.error(503, "overloaded");
    for stream in &mut busy {
        assert_eq!(Answer::parse(&rest(stream).await).status, 200);
    }
    assert_eq!(server.invoke(json!({})).await.status, 200);
}

#[tokio::test]
async fn idle_and_slow_uploads_end_by_themselves() {
    let pace = Pace { window: Duration::from_millis(300), bytes: 10_000 };
    let server = server(ConnectionSettings { pace, ..Default::default() }, |_| {});
    let mut idle = begin(&server, format!("{}{{", upload(90_000)).as_bytes()).await;
    let mut silent = begin(&server, upload(90_000).as_bytes()).await;
    let slow = begin(&server, upload(90_000).as_bytes()).await;
    let (mut reader, mut writer) = slow.into_split();
    let drip = tokio::spawn(async move {
        while writer.write_all(b"          ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(server.invoke(json!({})).await.status, 200);
    for stream in [&mut idle, &mut silent] {
        let message = Answer::parse(&rest(stream).await).error(408, "request_timeout");
        assert!(message.contains("MIN_TRANSFER_RATE"), "{message}");
    }
    let mut received = Vec::new();
    let _ = timeout(LONG, reader.read_to_end(&mut received)).await.unwrap();
    Answer::parse(&received).error(408, "request_timeout");
    drip.abort();
    // An upload that keeps the pace may take longer than that.
    let good = body(json!({})).to_string();
    let mut steady = begin(&server, upload(60_000).as_bytes()).await;
    let padded = format!("{good}{}", " ".repeat(60_000 - good.len()));
    for part in padded.as_bytes().chunks(10_000) {
        steady.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(90)).await;
    }
    let mut answered = vec![0; 12];
    steady.read_exact(&mut answered).await.unwrap();
    assert_eq!(answered, b"HTTP/1.1 200");
}

#[tokio::test]
async fn idle_uploads_on_every_connection_make_room() {
    let server = server(ConnectionSettings { most: 10, ..Default::default() }, |_| {});
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(begin(&server, format!("{}{{", upload(90_000)).as_bytes()).await);
    }
    let started = Instant::now();
    loop {
        let answer = server.invoke(json!({})).await;
        if answer.status == 200 {
            break;
        }
        answer.error(503, "overloaded");
        assert_eq!(server.ping().await, 200);
        assert!(started.elapsed() < LONG, "the uploads stop everybody");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_is_announced_takes_no_room() {
    const LIMIT: usize = 4 << 20;
    let server = server(ConnectionSettings::default(), |setup| setup.http.max_body = LIMIT);
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(begin(&server, format!("{}{{", upload(LIMIT)).as_bytes()).await);
    }
    let good = body(json!({})).to_string();
    let large = format!("{good}{}", " ".repeat(LIMIT - good.len()));
    let answer = server.send("POST /invocations", &[], large.as_bytes()).await;
    assert_eq!(answer.status, 200);
    assert!(metric(&server, "ahi_inference_body_bytes").await < 1e6);
    drop(idle);
    eventually_metric(&server, "ahi_inference_body_bytes", 0.0).await;
}

#[tokio::test]
async fn where_bodies_hold_all_room_large_ones_are_refused_and_small_ones_are_not() {
    const LIMIT: usize = 8 << 20;
    let connections =
        ConnectionSettings { body_wait: Duration::from_millis(200), ..Default::default() };
    let server = server(connections, |setup| setup.http.max_body = LIMIT);
    let mut hoarder = begin(&server, upload(LIMIT).as_bytes()).await;
    hoarder.write_all(&vec![b' '; LIMIT - 10]).await.unwrap();
    let started = Instant::now();
    while metric(&server, "ahi_inference_body_bytes").await < (LIMIT - (1 << 20)) as f64 {
        assert!(started.elapsed() < LONG);
    }
    let large = vec![b' '; LIMIT / 2];
    let refused = server.send("POST /invocations", &[], &large).await;
    let message = refused.error(503, "overloaded");
    assert!(message.contains("MAX_BODY_BYTES"), "{message}");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(server.invoke(json!({})).await.status, 200);
    drop(hoarder);
    eventually_metric(&server, "ahi_inference_body_bytes", 0.0).await;
    server.send("POST /invocations", &[], &large).await.error(400, "invalid_request");
}

#[tokio::test]
async fn clients_that_hang_up_by_the_hundred_leave_nothing_behind() {
    let server = server(ConnectionSettings::default(), |_| {});
    let half = format!("{}{}", upload(90_000), " ".repeat(40_000));
    let slow = body(json!({"model": "slow-60000"})).to_string();
    let slow = request("POST /invocations", &[], slow.as_bytes());
    for _ in 0..100 {
        drop(begin(&server, half.as_bytes()).await);
        drop(begin(&server, &slow).await);
        drop(begin(&server, b"POST /invocations HTTP/1.1\r\nHo").await);
    }
    eventually_metric(&server, "ahi_inference_body_bytes", 0.0).await;
    // The connection that requests the metrics.
    eventually_metric(&server, "ahi_inference_connections", 1.0).await;
    eventually_metric(&server, "ahi_inference_requests_running", 0.0).await;
    assert_eq!(server.invoke(json!({})).await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_left() {
    let pace = Pace { window: Duration::from_millis(300), bytes: 1000 };
    let server = server(ConnectionSettings { pace, ..Default::default() }, |setup| {
        setup.http.max_inline = 100 << 20;
    });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(server.address).await.unwrap();
    let big = body(json!({"model": "big-30000000"})).to_string();
    deaf.write_all(&request("POST /invocations", &[], big.as_bytes())).await.unwrap();
    super::harness::eventually("answered", || {
        server.stand_in.finished.load(std::sync::atomic::Ordering::SeqCst) == 1
    })
    .await;
    eventually_metric(&server, "ahi_inference_connections", 1.0).await;
    // A client that reads slowly still gets the whole response.
    let mut slow = begin(&server, &request("POST /invocations", &[], big.as_bytes())).await;
    let (mut received, mut part) = (0, vec![0; 4 << 20]);
    loop {
        let read = slow.read(&mut part).await.unwrap();
        if read == 0 {
            break;
        }
        received += read;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(received > 40_000_000, "{received}");
    drop(deaf);
}

#[tokio::test]
async fn a_client_that_is_refused_while_it_sends_sees_why() {
    let admission = AdmissionSettings { max_concurrent: 1, queue: 0 };
    let server = server(ConnectionSettings::default(), |setup| {
        setup.admission = admission;
        setup.http.max_body = 8 << 20;
    });
    server.shutdown.cancel();
    super::harness::eventually("draining", || {
        server.readiness.state() == ahi_inference::server::State::Draining
    })
    .await;
    // Whether the connection is still accepted depends on timing.
    let Ok(mut stream) = TcpStream::connect(server.address).await else { return };
    let sent = request("POST /invocations", &[], &vec![b' '; 4 << 20]);
    if stream.write_all(&sent).await.is_ok() {
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
        if !received.is_empty() {
            Answer::parse(&received).error(503, "unavailable");
        }
    }
}
