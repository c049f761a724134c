//! Graceful shutdown.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use ahi_inference::registry::BrokenNetworks;
use ahi_inference::scheduler::Drained;
use ahi_inference::server::{State, Termination};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::harness::{Answer, Server, Setup, body, eventually, request};

/// Sends one request in the background, on its own connection.
async fn begin(server: &Server, model: &str) -> tokio::task::JoinHandle<Answer> {
    let sent =
        request("POST /invocations", &[], body(json!({ "model": model })).to_string().as_bytes());
    let mut stream = server.connect().await;
    let before = server.stand_in.started.load(SeqCst);
    stream.write_all(&sent).await.unwrap();
    eventually("started", || server.stand_in.started.load(SeqCst) > before).await;
    tokio::spawn(async move {
        let mut received = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut received).await.unwrap();
        Answer::parse(&received)
    })
}

#[tokio::test]
async fn what_runs_is_finished_and_nothing_new_is_taken() {
    let server = Server::ready();
    let running = begin(&server, "slow-600").await;
    let idle = server.connect().await;
    server.shutdown.cancel();
    eventually("draining", || server.readiness.state() == State::Draining).await;
    assert_eq!(server.ping().await, 503);
    server.invoke(json!({})).await.error(503, "unavailable");

    let address = server.address;
    assert_eq!(server.stop().await, Drained::Finished);
    assert_eq!(running.await.unwrap().status, 200);
    assert!(TcpStream::connect(address).await.is_err(), "still listening");
    drop(idle);
}

#[tokio::test]
async fn a_network_that_keeps_failing_fails_the_probe_and_nothing_else() {
    for multi_model in [false, true] {
        let broken = BrokenNetworks::default();
        let setup = Setup { broken: broken.clone(), multi_model, ..Setup::default() };
        let server = Server::start(setup);
        server.readiness.started(true);
        assert_eq!(server.ping().await, 200);
        broken.count_up();
        assert_eq!(server.ping().await, 503);
        // Other models still answer until the instance is replaced.
        assert_eq!(server.invoke(json!({})).await.status, 200);
        broken.count_down();
        assert_eq!(server.ping().await, 200);
    }
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cancelled_and_told_so() {
    let drain_timeout = Duration::from_millis(200);
    let server = Server::start(Setup { drain_timeout, ..Setup::default() });
    let running = begin(&server, "slow-60000").await;
    let stand_in = Arc::clone(&server.stand_in);
    let told = Instant::now();
    assert_eq!(server.stop().await, Drained::Cancelled(1));
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    running.await.unwrap().error(503, "unavailable");
    eventually("cancelled", || stand_in.cancelled.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn an_unfinished_request_does_not_keep_the_server_from_stopping() {
    let server = Server::ready();
    let mut stream = server.connect().await;
    stream.write_all(b"POST /invocations HTTP/1.1\r\nHost:").await.unwrap();
    assert_eq!(server.ping().await, 200);
    let told = Instant::now();
    assert_eq!(server.stop().await, Drained::Finished);
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}

#[tokio::test]
async fn sigterm_stops_the_server() {
    let termination = Termination::new().unwrap();
    let never = CancellationToken::new();
    let server = Server::start_until(Setup::default(), never, termination.received());
    let running = begin(&server, "slow-300").await;
    let kill = format!("kill -TERM {}", std::process::id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(server.running.await.unwrap().unwrap(), Drained::Finished);
    assert_eq!(running.await.unwrap().status, 200);
}
