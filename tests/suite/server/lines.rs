//! Bodies of many requests: floods of lines, and shutdown halfway.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use ahi_inference::config::{AdmissionSettings, HttpSettings};
use ahi_inference::scheduler::Drained;
use ahi_inference::server::State;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::harness::{Answer, Server, Setup, body, eventually, request};

const LINES: [(&str, &str); 1] = [("Content-Type", "application/jsonlines")];

fn server(change: impl FnOnce(&mut Setup)) -> Server {
    let mut setup = Setup::default();
    change(&mut setup);
    let server = Server::start(setup);
    server.readiness.started(true);
    server
}

fn line(model: &str) -> String {
    body(json!({ "model": model })).to_string()
}

async fn send(server: &Server, text: &str) -> Answer {
    server.send("POST /invocations", &LINES, text.as_bytes()).await
}

/// Sends lines in the background.
async fn begin(server: &Server, text: &str) -> JoinHandle<Answer> {
    let sent = request("POST /invocations", &LINES, text.as_bytes());
    let mut stream = server.connect().await;
    stream.write_all(&sent).await.unwrap();
    eventually("started", || server.stand_in.started.load(SeqCst) > 0).await;
    tokio::spawn(async move {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        Answer::parse(&received)
    })
}

#[track_caller]
fn answers(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/jsonlines");
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_line_has_its_answer_and_blank_ones_at_the_end_are_none() {
    let server = server(|_| {});
    let text = format!("{}\r\n\n{{}}\n{}\n\n \t\n", line("a"), line("not_found"));
    let answers = answers(&send(&server, &text).await);
    assert_eq!(answers.len(), 4);
    assert_eq!(answers[0]["model"], "a");
    assert!(answers[0]["requestId"].as_str().unwrap().ends_with("-1"));
    assert_eq!(answers[1]["error"]["code"], "invalid_request");
    assert_eq!(answers[2]["error"]["details"]["line"], 3);
    assert_eq!(answers[3]["error"]["code"], "not_found");
    assert_eq!(answers[3]["error"]["details"]["line"], 4);
    send(&server, "\n\r\n\n").await.error(400, "invalid_request");
}

#[tokio::test]
async fn floods_of_lines_are_bounded() {
    let server = server(|setup| setup.http.max_body = 40 << 20);
    let flood = "1\n".repeat(200_000);
    let message = send(&server, &flood).await.error(413, "payload_too_large");
    assert!(message.contains("100000 lines"), "{message}");
    send(&server, &"\n".repeat(30 << 20)).await.error(400, "invalid_request");
    let blank = "\n".repeat(30 << 20) + &line("a");
    send(&server, &blank).await.error(413, "payload_too_large");
    let huge =
        answers(&send(&server, &format!("{}\n{}", " ".repeat(26 << 20) + "1", line("a"))).await);
    assert_eq!(huge[0]["error"]["code"], "payload_too_large");
    assert_eq!(huge[1]["model"], "a");
    let bad = answers(&send(&server, &"1\n".repeat(2000)).await);
    assert_eq!(bad.len(), 2000);
    assert!(bad.iter().all(|line| line["error"]["code"] == "invalid_request"));
}

#[tokio::test]
async fn a_body_that_was_let_in_is_finished_whole() {
    let server = server(|setup| {
        setup.admission = AdmissionSettings { max_concurrent: 1, queue: 0 };
    });
    let text = [line("slow-200"), line("slow-201"), line("slow-202"), line("b")].join("\n");
    let running = begin(&server, &text).await;
    server.shutdown.cancel();
    eventually("draining", || server.readiness.state() == State::Draining).await;
    send(&server, &line("c")).await.error(503, "unavailable");
    assert_eq!(server.stop().await, Drained::Finished);
    let answers = answers(&running.await.unwrap());
    let models: Vec<&str> = answers.iter().map(|a| a["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["slow-200", "slow-201", "slow-202", "b"]);
}

#[tokio::test]
async fn a_body_that_cannot_be_finished_is_refused_as_a_whole() {
    let server = server(|setup| {
        setup.drain_timeout = Duration::from_millis(300);
        setup.admission = AdmissionSettings { max_concurrent: 2, queue: 0 };
    });
    let running = begin(&server, &[line("a"), line("slow-60000"), line("b")].join("\n")).await;
    assert_eq!(server.stop().await, Drained::Cancelled(1));
    running.await.unwrap().error(503, "unavailable");
}

#[tokio::test]
async fn a_body_that_is_still_coming_is_refused() {
    let server = server(|_| {});
    let head = "POST /invocations HTTP/1.1\r\nHost: test\r\nContent-Type: application/jsonlines\r\n\
                Content-Length: 90000\r\n\r\n{";
    let mut stream = server.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(server.ping().await, 200);
    let address = server.address;
    assert_eq!(server.stop().await, Drained::Finished);
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received).await;
    Answer::parse(&received).error(503, "unavailable");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn inputs_are_bounded() {
    let http = HttpSettings { max_inputs: 3, max_body: 26 << 20, ..Setup::default().http };
    let server = server(|setup| setup.http = http);
    let input = body(json!({}));
    let of = |n: usize| json!({"inputs": vec![input.clone(); n]}).to_string();
    let invoke = async |body: &str| server.send("POST /invocations", &[], body.as_bytes()).await;
    assert_eq!(invoke(&of(3)).await.json()["results"].as_array().unwrap().len(), 3);
    let message = invoke(&of(4)).await.error(400, "invalid_request");
    assert!(message.contains("MAX_INPUTS_PER_REQUEST"), "{message}");
    let flood = format!("{{\"inputs\":[{}{{}}]}}", "{},".repeat(8 << 20));
    invoke(&flood).await.error(400, "invalid_request");
}
