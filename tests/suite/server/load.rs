//! Many concurrent requests, and clients that disconnect.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use ahi_inference::config::AdmissionSettings;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::harness::{Answer, Server, Setup, body, eventually, request};

/// Sends one request in the background.
fn spawn(server: &Arc<Server>, model: &'static str) -> tokio::task::JoinHandle<Answer> {
    let server = Arc::clone(server);
    tokio::spawn(async move { server.invoke(json!({ "model": model })).await })
}

#[test]
fn ping_answers_at_once_while_every_worker_is_busy() {
    let work = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let http =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    http.block_on(async {
        let server = Server::start(Setup { work: work.handle().clone(), ..Setup::default() });
        server.readiness.started(true);
        let server = Arc::new(server);
        let busy: Vec<_> = (0..4).map(|_| spawn(&server, "block-1500")).collect();
        eventually("busy", || server.stand_in.started.load(SeqCst) > 0).await;
        for _ in 0..20 {
            let asked = Instant::now();
            assert_eq!(server.ping().await, 200);
            assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        }
        assert_eq!(server.stand_in.finished.load(SeqCst), 0, "the workers were not busy");
        for answer in busy {
            assert_eq!(answer.await.unwrap().status, 200);
        }
    });
    work.shutdown_background();
}

#[tokio::test]
async fn requests_beyond_the_queue_are_refused_and_none_is_lost() {
    let admission = AdmissionSettings { max_concurrent: 2, queue: 3 };
    let server = Arc::new(Server::start(Setup { admission, ..Setup::default() }));
    let all: Vec<_> = (0..20).map(|_| spawn(&server, "slow-400")).collect();
    let (mut answered, mut refused) = (0, 0);
    for answer in all {
        let answer = answer.await.unwrap();
        if answer.status == 200 {
            answered += 1;
        } else {
            answer.error(503, "overloaded");
            assert!(answer.headers["retry-after"].parse::<u32>().unwrap() > 0);
            refused += 1;
        }
    }
    assert_eq!((answered, refused), (5, 15));
    assert_eq!(server.stand_in.finished.load(SeqCst), 5);
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_work_and_frees_its_place() {
    let admission = AdmissionSettings { max_concurrent: 1, queue: 0 };
    let server = Server::start(Setup { admission, ..Setup::default() });
    let slow = body(json!({"model": "slow-60000"})).to_string();
    for round in 1..=3 {
        let mut client = server.connect().await;
        client.write_all(&request("POST /invocations", &[], slow.as_bytes())).await.unwrap();
        eventually("started", || server.stand_in.started.load(SeqCst) == round).await;
        server.invoke(json!({})).await.error(503, "overloaded");
        drop(client);
        eventually("cancelled", || server.stand_in.cancelled.load(SeqCst) == round).await;
        // The permit is released a moment after the work reports its cancellation.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.invoke(json!({})).await.status, 200);
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_waits_leaves_the_queue() {
    let admission = AdmissionSettings { max_concurrent: 1, queue: 1 };
    let server = Arc::new(Server::start(Setup { admission, ..Setup::default() }));
    let running = spawn(&server, "slow-1000");
    eventually("started", || server.stand_in.started.load(SeqCst) == 1).await;
    let slow = body(json!({"model": "slow-60000"})).to_string();
    let mut waiting = server.connect().await;
    waiting.write_all(&request("POST /invocations", &[], slow.as_bytes())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.invoke(json!({})).await.error(503, "overloaded");
    drop(waiting);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.invoke(json!({})).await.status, 200);
    assert_eq!(running.await.unwrap().status, 200);
    // The request whose client left never started.
    assert_eq!(server.stand_in.started.load(SeqCst), 2);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::ready();
    let first = body(json!({"model": "slow-100"})).to_string();
    let head = "POST /invocations HTTP/1.1\r\nHost: test\r\nContent-Length: ";
    let mut bytes = format!("{head}{}\r\n\r\n{first}", first.len()).into_bytes();
    bytes.extend(b"GET /ping HTTP/1.1\r\nHost: test\r\n\r\n");
    bytes.extend(request("GET /nowhere", &[], b""));
    let received = String::from_utf8(server.raw(&bytes).await).unwrap();
    let statuses: Vec<&str> =
        received.match_indices("HTTP/1.1 ").map(|(at, m)| &received[at + m.len()..][..3]).collect();
    assert_eq!(statuses, ["200", "200", "404"], "{received}");
    assert!(received.contains("slow-100"), "{received}");
}
