//! Tests of events: work that completes, stalls or is abandoned.

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;
use crate::error::ErrorKind;
use crate::progress::{Observer, Stage};

const QUICK: Pace =
    Pace { heartbeat: Duration::from_millis(60), progress: Duration::from_millis(20) };

const LONG: Duration = Duration::from_secs(10);

/// A pace without heartbeats.
const QUIET: Pace = Pace { heartbeat: LONG, ..QUICK };

/// A stream of events with its feed and the handles that end its work.
struct Fixture {
    events: Events,
    feed: Arc<Feed>,
    end: Option<oneshot::Sender<Result<Vec<u8>>>>,
    /// Resolves once the work has been dropped.
    gone: oneshot::Receiver<()>,
    ended: Ended,
}

impl Fixture {
    fn begin(pace: Pace) -> Self {
        let (end, ending) = oneshot::channel::<Result<Vec<u8>>>();
        let (alive, gone) = oneshot::channel::<()>();
        let work = tokio::spawn(async move {
            let _alive = alive;
            ending.await.unwrap_or_else(|_| panic!("the test let go of the work"))
        });
        let work = AbortOnDropHandle::new(work);
        let (feed, ended) = (Arc::new(Feed::default()), Ended::default());
        let context =
            Context { request_id: "id".to_owned(), inference_id: None, trace: Default::default() };
        let own = (Arc::clone(&feed), ended.clone());
        let events = Events::begin(Framing::Lines, &context, Some(9.0), own.0, work, own.1, pace);
        Self { events, feed, end: Some(end), gone, ended }
    }

    async fn next(&mut self) -> Value {
        let bytes = timeout(LONG, self.events.next()).await.unwrap().unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn end(&mut self, report: Result<Vec<u8>>) {
        assert!(self.end.take().unwrap().send(report).is_ok());
    }

    /// Returns the remaining events, one JSON object per line.
    async fn rest(&mut self) -> Vec<Value> {
        let mut text = Vec::new();
        while let Some(bytes) = timeout(LONG, self.events.next()).await.unwrap() {
            text.extend_from_slice(&bytes);
        }
        let text = String::from_utf8(text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn events_come_in_their_order_and_the_report_last() {
    let mut fixture = Fixture::begin(QUIET);
    let accepted = json!({"event": "accepted", "requestId": "id", "limitSeconds": 9.0});
    assert_eq!(fixture.next().await, accepted);
    fixture.feed.queued(2);
    assert_eq!(fixture.next().await, json!({"event": "queued", "place": 2}));
    fixture.feed.started();
    fixture.feed.advance(0, Stage::Frames, 1, 3);
    assert_eq!(fixture.next().await["event"], "started");
    let expected = json!({
        "event": "progress", "input": 0, "stage": "frames", "done": 1, "total": 3, "share": 0.3333,
    });
    assert_eq!(fixture.next().await, expected);
    fixture.feed.advance(0, Stage::Frames, 3, 3);
    fixture.end(Ok(br#"{"results":[1]}"#.to_vec()));
    let rest = fixture.rest().await;
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert_eq!(rest[0]["share"], 1.0, "what came last is told before the end");
    assert_eq!(rest[1], json!({"event": "result", "report": {"results": [1]}}));
    assert_eq!(fixture.ended.status(), (200, "ok"));
}

#[tokio::test]
async fn progress_is_sent_now_and_then_and_the_latest_of_it() {
    let pace = Pace { progress: Duration::from_millis(100), ..QUIET };
    let mut fixture = Fixture::begin(pace);
    fixture.next().await;
    fixture.feed.advance(0, Stage::Inference, 0, 1000);
    assert_eq!(fixture.next().await["done"], 0);
    let feed = Arc::clone(&fixture.feed);
    let work = tokio::spawn(async move {
        for done in 1..=1000 {
            feed.advance(0, Stage::Inference, done, 1000);
            if done % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let mut sent = 0;
    while fixture.next().await["done"] != 1000 {
        sent += 1;
    }
    work.await.unwrap();
    assert!(sent < 100, "{sent} events of 1000 steps");
}

#[tokio::test]
async fn a_reader_that_sleeps_holds_up_nothing_and_finds_the_end() {
    let mut fixture = Fixture::begin(QUICK);
    for done in 0..100_000 {
        fixture.feed.advance(done % 3, Stage::Inference, done, 100_000);
    }
    fixture.end(Ok(b"{}".to_vec()));
    // The work has ended although no event was read.
    timeout(LONG, &mut fixture.gone).await.unwrap().unwrap_err();
    let events = fixture.rest().await;
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["accepted", "progress", "progress", "progress", "result"]);
}

#[tokio::test]
async fn silence_is_filled_with_heartbeats() {
    let mut fixture = Fixture::begin(QUICK);
    fixture.next().await;
    for _ in 0..2 {
        let beat = fixture.next().await;
        assert_eq!(beat["event"], "heartbeat");
        assert!(beat["seconds"].as_f64().unwrap() > 0.0);
    }
}

#[tokio::test]
async fn a_failure_is_an_event_with_status_and_code_and_the_last() {
    let mut fixture = Fixture::begin(QUIET);
    fixture.end(Err(Error::new(ErrorKind::CorruptFrame, "broken").with("frame", 3)));
    let events = fixture.rest().await;
    let error = json!({"code": "corrupt_frame", "message": "broken", "details": {"frame": 3}});
    let expected = json!({"event": "error", "status": 422, "error": error, "requestId": "id"});
    assert_eq!(events[1..], [expected]);
    assert_eq!(fixture.ended.status(), (422, "corrupt_frame"));

    let mut fixture = Fixture::begin(QUIET);
    drop(fixture.end.take());
    let events = fixture.rest().await;
    assert_eq!((events[1]["status"].as_u64(), events.len()), (Some(500), 2), "{events:?}");
    assert!(!events[1].to_string().contains("panicked"), "the log alone says so");
}

#[tokio::test]
async fn dropping_the_body_ends_the_work() {
    let Fixture { events, gone, ended, end, .. } = Fixture::begin(QUIET);
    let body = events.into_body();
    drop(body);
    // The sender is dropped with the task.
    timeout(LONG, gone).await.unwrap().unwrap_err();
    assert!(end.unwrap().is_closed());
    assert_eq!(ended.status(), (499, "cancelled"));
}
