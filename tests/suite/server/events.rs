//! Streamed responses over real connections.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use ahi_inference::config::{AdmissionSettings, ConnectionSettings, Pace};
use ahi_inference::scheduler::Drained;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::harness::{Server, Setup, body, eventually, request};

const LONG: Duration = Duration::from_secs(10);

fn server(change: impl FnOnce(&mut Setup)) -> Server {
    let mut setup = Setup::default();
    change(&mut setup);
    let server = Server::start(setup);
    server.readiness.started(true);
    server
}

/// A streamed response as its client reads it.
struct Stream {
    reader: BufReader<TcpStream>,
    status: u16,
    head: String,
}

impl Stream {
    async fn ask(server: &Server, accept: &str, options: Value) -> Self {
        let mut stream = server.connect().await;
        let body = body(options).to_string();
        let sent = request("POST /invocations", &[("Accept", accept)], body.as_bytes());
        stream.write_all(&sent).await.unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = timeout(LONG, reader.read_line(&mut head)).await.unwrap().unwrap();
            assert!(read > 0, "no answer: {head}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { reader, status, head: head.to_lowercase() }
    }

    /// Returns the next chunk as it was sent, or `None` at the end or if the connection breaks.
    async fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        let read = timeout(LONG, self.reader.read_line(&mut size)).await.unwrap().ok()?;
        if read == 0 {
            return None;
        }
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut content = vec![0; size + 2];
        timeout(LONG, self.reader.read_exact(&mut content)).await.unwrap().ok()?;
        content.truncate(size);
        (size > 0).then(|| String::from_utf8(content).unwrap())
    }

    /// Returns the next event of a stream of lines. A large event spans several chunks.
    async fn event(&mut self) -> Option<Value> {
        let mut line = String::new();
        while !line.ends_with('\n') {
            line += &self.chunk().await?;
        }
        Some(serde_json::from_str(&line).unwrap())
    }

    async fn rest(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.event().await {
            events.push(event);
        }
        events
    }
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

const LINES: &str = "application/jsonlines";

#[tokio::test]
async fn the_report_comes_last_and_is_that_of_a_plain_answer() {
    let server = Server::ready();
    let plain = server.invoke(json!({"model": "busy-50"})).await.json();
    let mut stream = Stream::ask(&server, LINES, json!({"model": "busy-50"})).await;
    assert_eq!(stream.status, 200);
    for header in ["content-type: application/jsonlines\r\n", "cache-control: no-store\r\n"] {
        assert!(stream.head.contains(header), "{}", stream.head);
    }
    let events = stream.rest().await;
    assert_eq!(names(&events), ["accepted", "started", "progress", "result"], "{events:?}");
    let id = events[0]["requestId"].as_str().unwrap();
    assert!(stream.head.contains(&format!("x-request-id: {id}\r\n")));
    assert_eq!(events[0]["limitSeconds"], 30.0);
    assert_eq!((&events[2]["done"], &events[2]["share"]), (&json!(50), &json!(1.0)));
    let mut report = events[3]["report"].clone();
    assert_eq!(report["requestId"], id);
    report["requestId"] = plain["requestId"].clone();
    assert_eq!(report, plain);
}

#[tokio::test]
async fn events_are_sent_as_they_happen() {
    let server = Server::ready();
    let mut stream = Stream::ask(&server, LINES, json!({"model": "slow-60000"})).await;
    assert_eq!(stream.event().await.unwrap()["event"], "accepted");
    assert_eq!(stream.event().await.unwrap()["event"], "started");
    let frames = stream.event().await.unwrap();
    assert_eq!((frames["stage"].as_str(), &frames["share"]), (Some("frames"), &json!(0.5)));
    assert_eq!(server.stand_in.finished.load(SeqCst), 0);
}

#[tokio::test]
async fn server_sent_events_have_the_same_in_their_form() {
    let server = Server::ready();
    let mut stream = Stream::ask(&server, "text/event-stream", json!({})).await;
    assert!(stream.head.contains("content-type: text/event-stream\r\n"), "{}", stream.head);
    let mut text = String::new();
    while let Some(chunk) = stream.chunk().await {
        text += &chunk;
    }
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    for event in &events {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: ").unwrap(), data["event"]);
    }
    assert!(events[0].starts_with("event: accepted\n"));
    assert!(events.last().unwrap().starts_with("event: result\n"));
}

#[tokio::test]
async fn what_fails_before_the_first_event_has_a_status() {
    let server = server(|setup| {
        setup.admission = AdmissionSettings { max_concurrent: 1, queue: 0 };
    });
    let accept = [("Accept", LINES)];
    server.send("POST /invocations", &accept, b"{").await.error(400, "invalid_request");
    let image = [("Accept", "image/png")];
    let bare = body(json!({})).to_string();
    server.send("POST /invocations", &image, bare.as_bytes()).await.error(406, "not_acceptable");
    let mut running = Stream::ask(&server, LINES, json!({"model": "slow-60000"})).await;
    assert_eq!(running.event().await.unwrap()["event"], "accepted");
    let full = server.send("POST /invocations", &accept, bare.as_bytes()).await;
    full.error(503, "overloaded");
    assert!(full.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn what_fails_later_is_the_last_event() {
    let server = Server::ready();
    for (model, status, code) in
        [("corrupt_frame", 422, "corrupt_frame"), ("panic", 500, "internal")]
    {
        let mut stream = Stream::ask(&server, LINES, json!({ "model": model })).await;
        assert_eq!(stream.status, 200);
        let events = stream.rest().await;
        let last = events.last().unwrap();
        assert_eq!(
            (&last["event"], &last["status"], &last["error"]["code"]),
            (&json!("error"), &json!(status), &json!(code)),
            "{events:?}"
        );
        assert_eq!(last["requestId"], events[0]["requestId"]);
    }
}

#[tokio::test]
async fn a_stream_has_its_own_time_and_a_plain_answer_is_told_of_it() {
    let server = server(|setup| {
        setup.http.request_timeout = Some(Duration::from_millis(200));
        setup.http.stream_timeout = Some(Duration::from_secs(20));
    });
    let message = server.invoke(json!({"model": "slow-800"})).await.error(504, "deadline_exceeded");
    assert!(message.contains("InvokeEndpointWithResponseStream"), "{message}");
    let mut stream = Stream::ask(&server, LINES, json!({"model": "slow-800"})).await;
    assert_eq!(stream.rest().await.last().unwrap()["event"], "result");

    let short = self::server(|setup| {
        setup.http.request_timeout = Some(Duration::from_millis(100));
        setup.http.stream_timeout = Some(Duration::from_millis(200));
    });
    let mut stream = Stream::ask(&short, LINES, json!({"model": "slow-60000"})).await;
    let events = stream.rest().await;
    let error = &events.last().unwrap()["error"];
    assert_eq!(error["code"], "deadline_exceeded");
    assert!(error["message"].as_str().unwrap().contains("STREAM_TIMEOUT"), "{error}");
    eventually("cancelled", || short.stand_in.cancelled.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_work_in_the_queue_and_at_work() {
    let server = server(|setup| {
        setup.admission = AdmissionSettings { max_concurrent: 1, queue: 1 };
    });
    let mut running = Stream::ask(&server, LINES, json!({"model": "slow-60000"})).await;
    assert_eq!(running.event().await.unwrap()["event"], "accepted");
    let mut waiting = Stream::ask(&server, LINES, json!({"model": "slow-60001"})).await;
    assert_eq!(waiting.event().await.unwrap()["event"], "accepted");
    let queued = waiting.event().await.unwrap();
    assert_eq!((queued["event"].as_str(), &queued["place"]), (Some("queued"), &json!(1)));
    drop(waiting);
    // Its slot in the queue is free for another request.
    let started = Instant::now();
    let mut next = loop {
        let next = Stream::ask(&server, LINES, json!({})).await;
        if next.status == 200 {
            break next;
        }
        assert!(started.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    drop(running);
    eventually("cancelled", || server.stand_in.cancelled.load(SeqCst) == 1).await;
    let events = next.rest().await;
    assert_eq!(names(&events)[1], "queued");
    assert_eq!(names(&events).last(), Some(&"result"));
    assert_eq!(server.stand_in.started.load(SeqCst), 2, "the one that left never began");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_and_is_left() {
    let pace = Pace { window: Duration::from_millis(300), bytes: 1000 };
    let server = server(|setup| {
        setup.http.connections = ConnectionSettings { pace, ..Default::default() };
        setup.http.max_inline = 100 << 20;
        setup.admission = AdmissionSettings { max_concurrent: 1, queue: 1 };
    });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(server.address).await.unwrap();
    let big = body(json!({"model": "big-30000000"})).to_string();
    let accept = [("Accept", LINES)];
    deaf.write_all(&request("POST /invocations", &accept, big.as_bytes())).await.unwrap();
    eventually("answered", || server.stand_in.finished.load(SeqCst) == 1).await;
    // Its permit is released as soon as its work has ended, whether or not the client reads.
    assert_eq!(server.invoke(json!({})).await.status, 200);
    let connections = async || {
        let text = server.send("GET /metrics", &[], b"").await.body;
        String::from_utf8(text).unwrap().contains("ahi_inference_connections 1\n")
    };
    let started = Instant::now();
    while !connections().await {
        assert!(started.elapsed() < LONG, "its connection is kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(deaf);
}

#[tokio::test]
async fn a_server_that_stops_finishes_streams_or_tells_them() {
    let server = Server::ready();
    let mut stream = Stream::ask(&server, LINES, json!({"model": "slow-500"})).await;
    assert_eq!(stream.event().await.unwrap()["event"], "accepted");
    let (drained, events) = tokio::join!(server.stop(), stream.rest());
    assert_eq!(drained, Drained::Finished);
    assert_eq!(names(&events).last(), Some(&"result"));

    let server = self::server(|setup| setup.drain_timeout = Duration::from_millis(200));
    let mut stream = Stream::ask(&server, LINES, json!({"model": "slow-60000"})).await;
    assert_eq!(stream.event().await.unwrap()["event"], "accepted");
    let (drained, events) = tokio::join!(server.stop(), stream.rest());
    assert_eq!(drained, Drained::Cancelled(1));
    let last = events.last().unwrap();
    assert_eq!((&last["status"], &last["error"]["code"]), (&json!(503), &json!("unavailable")));
}

#[tokio::test]
async fn a_stream_is_counted_by_how_it_ended() {
    let server = Server::ready();
    for model in ["busy-1", "corrupt_frame"] {
        Stream::ask(&server, LINES, json!({ "model": model })).await.rest().await;
    }
    let mut left = Stream::ask(&server, LINES, json!({"model": "slow-60000"})).await;
    assert_eq!(left.event().await.unwrap()["event"], "accepted");
    drop(left);
    let counted = async || {
        let text = server.send("GET /metrics", &[], b"").await.body;
        let text = String::from_utf8(text).unwrap();
        ["200", "422", "499"].iter().all(|status| {
            let labels = format!(r#"route="/invocations",method="POST",status="{status}""#);
            text.contains(&format!("ahi_inference_requests_total{{{labels}}} 1\n"))
        })
    };
    let started = Instant::now();
    while !counted().await {
        assert!(started.elapsed() < LONG, "they are not counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn bodies_of_many_requests_are_answered_as_before() {
    let server = Server::ready();
    let line = body(json!({"model": "a"})).to_string();
    let headers = [("Content-Type", LINES), ("Accept", LINES)];
    let answer = server.send("POST /invocations", &headers, line.as_bytes()).await;
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, LINES));
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer["model"], "a");
    let headers = [("Content-Type", LINES), ("Accept", "text/event-stream")];
    let answer = server.send("POST /invocations", &headers, line.as_bytes()).await;
    answer.error(406, "not_acceptable");
}
