//! Tests the scheduler with work that can be held up, using short real times.

use async_trait::async_trait;
use tokio::sync::Notify;

use super::*;
use crate::pipeline::{Held, Places};
use crate::progress::Silent;
use crate::request::{Input, SegmentationChoice};

/// Holds every request until notified.
#[derive(Default)]
struct Gate {
    entered: Notify,
    go: Notify,
    deaf: bool,
}

#[async_trait]
impl Invoke for Gate {
    fn admit(&self, _: &InferenceRequest) -> Result<Held> {
        Ok(None)
    }

    async fn invoke(
        &self,
        request: InferenceRequest,
        _: Held,
        _: Places,
        cancel: CancellationToken,
        _: Arc<dyn Observer>,
    ) -> Result<Outcome> {
        self.entered.notify_one();
        tokio::select! {
            () = self.go.notified() => Ok(Outcome {
                request_id: request.request_id,
                inference_id: None,
                model: "gate".to_owned(),
                results: Vec::new(),
            }),
            () = cancel.cancelled(), if !self.deaf => {
                Err(Error::new(ErrorKind::Cancelled, "cancelled"))
            }
        }
    }
}

fn request(id: &str) -> InferenceRequest {
    InferenceRequest {
        request_id: id.to_owned(),
        inference_id: None,
        inputs: vec![Input::ImageSet {
            datastore_id: "unused".to_owned(),
            image_set_id: "unused".to_owned(),
            version_id: None,
        }],
        model: None,
        outputs: Vec::new(),
        segments: Vec::new(),
        output_uri: None,
        store: crate::archive::Store::Unsaid,
        policy: crate::policy::PolicyChoice::default(),
        segmentation: SegmentationChoice::default(),
        single: false,
        trace: crate::traces::Trace::default(),
    }
}

fn scheduler(gate: &Arc<Gate>, max_concurrent: usize, queue: usize) -> Arc<Scheduler> {
    let settings = AdmissionSettings { max_concurrent, queue };
    Arc::new(Scheduler::new(Arc::clone(gate) as _, settings, Handle::current()))
}

fn spawn(
    scheduler: &Arc<Scheduler>,
    id: &'static str,
    deadline: Option<Deadline>,
) -> tokio::task::JoinHandle<Result<Scheduled>> {
    let scheduler = Arc::clone(scheduler);
    tokio::spawn(async move { run(&scheduler, id, deadline).await })
}

async fn run(scheduler: &Scheduler, id: &str, deadline: Option<Deadline>) -> Result<Scheduled> {
    run_with(scheduler, &scheduler.ticket()?, id, deadline).await
}

async fn run_with(
    scheduler: &Scheduler,
    ticket: &Ticket,
    id: &str,
    deadline: Option<Deadline>,
) -> Result<Scheduled> {
    let admitted = scheduler.admit(ticket, request(id))?;
    scheduler.run(admitted, deadline, Arc::new(Silent)).await
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_beyond_the_queue_are_refused_and_the_others_run_in_order() {
    let gate = Arc::new(Gate::default());
    let scheduler = scheduler(&gate, 1, 1);
    let first = spawn(&scheduler, "1", None);
    gate.entered.notified().await;
    let second = spawn(&scheduler, "2", None);
    settle().await;

    let refused = run(&scheduler, "3", None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);

    tokio::time::sleep(Duration::from_millis(30)).await;
    gate.go.notify_one();
    assert_eq!(first.await.unwrap().unwrap().outcome.request_id, "1");
    gate.entered.notified().await;
    gate.go.notify_one();
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.outcome.request_id, "2");
    assert!(second.queued >= Duration::from_millis(30), "{:?}", second.queued);
    settle().await;
    assert_eq!(scheduler.in_flight(), 0);
}

#[tokio::test]
async fn deadlines_end_waiting_and_running() {
    let gate = Arc::new(Gate::default());
    let scheduler = scheduler(&gate, 1, 4);
    let running = spawn(&scheduler, "1", Some(Deadline::after(Duration::from_millis(300))));
    gate.entered.notified().await;
    let waiting = spawn(&scheduler, "2", Some(Deadline::after(Duration::from_millis(50))));

    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.message().contains("waiting"), "{error}");
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.message().contains("InvokeEndpointAsync"), "{error}");
    settle().await;
    assert_eq!(scheduler.in_flight(), 0);
}

#[test]
fn what_to_do_about_a_deadline_depends_on_what_set_it() {
    let message = |bound| {
        let deadline = Deadline::since(Instant::now(), Duration::from_secs(60), bound);
        Deadline::exceeded(Some(deadline), "being worked on").message().to_owned()
    };
    for (bound, setting, stream) in [
        (Bound::Request, "REQUEST_TIMEOUT", false),
        (Bound::RequestOrStream, "REQUEST_TIMEOUT", true),
        (Bound::Stream, "raise STREAM_TIMEOUT", false),
    ] {
        let message = message(bound);
        assert!(message.contains(setting) && message.contains("InvokeEndpointAsync"), "{message}");
        assert_eq!(message.contains("InvokeEndpointWithResponseStream"), stream, "{message}");
    }
}

#[tokio::test]
async fn who_waits_is_told_its_place() {
    /// Records the notifications.
    #[derive(Default)]
    struct Told(std::sync::Mutex<Vec<String>>);
    impl Observer for Told {
        fn queued(&self, place: usize) {
            self.0.lock().unwrap().push(format!("place {place}"));
        }
        fn started(&self) {
            self.0.lock().unwrap().push("started".to_owned());
        }
    }
    let gate = Arc::new(Gate::default());
    let scheduler = scheduler(&gate, 1, 2);
    let first = spawn(&scheduler, "1", None);
    gate.entered.notified().await;
    let second = spawn(&scheduler, "2", None);
    settle().await;
    let told = Arc::new(Told::default());
    let third = {
        let (scheduler, told) = (Arc::clone(&scheduler), Arc::clone(&told));
        tokio::spawn(async move {
            let admitted = scheduler.admit(&scheduler.ticket()?, request("3"))?;
            scheduler.run(admitted, None, told).await
        })
    };
    settle().await;
    assert_eq!(*told.0.lock().unwrap(), ["place 2"]);
    second.abort();
    settle().await;
    assert_eq!(*told.0.lock().unwrap(), ["place 2", "place 1"]);
    gate.go.notify_one();
    assert!(first.await.unwrap().is_ok());
    gate.entered.notified().await;
    gate.go.notify_one();
    assert!(third.await.unwrap().is_ok());
    assert_eq!(*told.0.lock().unwrap(), ["place 2", "place 1", "started"]);
}

#[tokio::test]
async fn work_keeps_its_place_until_it_has_ended() {
    let gate = Arc::new(Gate { deaf: true, ..Gate::default() });
    let scheduler = scheduler(&gate, 1, 0);
    let caller = spawn(&scheduler, "1", None);
    gate.entered.notified().await;
    caller.abort();
    settle().await;
    let refused = run(&scheduler, "2", None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert_eq!(scheduler.in_flight(), 1);

    gate.go.notify_one();
    settle().await;
    assert_eq!(scheduler.in_flight(), 0);
    let next = spawn(&scheduler, "3", None);
    gate.entered.notified().await;
    gate.go.notify_one();
    assert!(next.await.unwrap().is_ok());
}

#[tokio::test]
async fn an_abandoned_request_in_the_queue_leaves_it() {
    let gate = Arc::new(Gate::default());
    let scheduler = scheduler(&gate, 1, 1);
    let running = spawn(&scheduler, "1", None);
    gate.entered.notified().await;
    let waiting = spawn(&scheduler, "2", None);
    settle().await;
    assert_eq!(scheduler.in_flight(), 2);
    assert_eq!(scheduler.load(), Load { running: 1, waiting: 1 });
    waiting.abort();
    settle().await;
    assert_eq!(scheduler.in_flight(), 1);
    assert_eq!(scheduler.load(), Load { running: 1, waiting: 0 });
    gate.go.notify_one();
    assert!(running.await.unwrap().is_ok());
}

#[tokio::test]
async fn draining_waits_for_all_that_were_let_in() {
    let gate = Arc::new(Gate::default());
    let scheduler = scheduler(&gate, 1, 1);
    let first = spawn(&scheduler, "1", None);
    gate.entered.notified().await;
    let second = spawn(&scheduler, "2", None);
    settle().await;
    let drain = tokio::spawn({
        let scheduler = Arc::clone(&scheduler);
        async move { scheduler.drain(Duration::from_secs(25)).await }
    });
    settle().await;
    assert_eq!(scheduler.ensure_open().unwrap_err().kind(), ErrorKind::Unavailable);
    let refused = run(&scheduler, "3", None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);

    gate.go.notify_one();
    gate.entered.notified().await;
    gate.go.notify_one();
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
    assert_eq!(drain.await.unwrap(), Drained::Finished);
}

#[tokio::test]
async fn what_outlasts_the_drain_is_cancelled_and_told_so() {
    let gate = Arc::new(Gate::default());
    let scheduler = scheduler(&gate, 1, 1);
    let running = spawn(&scheduler, "1", None);
    let waiting = spawn(&scheduler, "2", None);
    gate.entered.notified().await;
    assert_eq!(scheduler.drain(Duration::from_millis(50)).await, Drained::Cancelled(2));
    for caller in [running, waiting] {
        assert_eq!(caller.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    settle().await;
    assert_eq!(scheduler.in_flight(), 0);
}

#[tokio::test]
async fn a_ticket_lets_through_while_others_are_refused_and_is_waited_for() {
    let gate = Arc::new(Gate::default());
    let scheduler = scheduler(&gate, 1, 1);
    let ticket = scheduler.ticket().unwrap();
    let drain = tokio::spawn({
        let scheduler = Arc::clone(&scheduler);
        async move { scheduler.drain(Duration::from_secs(25)).await }
    });
    assert_eq!(scheduler.closed().await.kind(), ErrorKind::Unavailable);
    assert_eq!(scheduler.ticket().unwrap_err().kind(), ErrorKind::Unavailable);
    for id in ["1", "2"] {
        gate.go.notify_one();
        assert!(run_with(&scheduler, &ticket, id, None).await.is_ok());
    }
    settle().await;
    assert!(!drain.is_finished(), "its answer is not made yet");
    assert_eq!(scheduler.in_flight(), 1);
    drop(ticket);
    assert_eq!(drain.await.unwrap(), Drained::Finished);
}

#[tokio::test]
async fn a_ticket_that_outlasts_the_drain_is_told() {
    let gate = Arc::new(Gate::default());
    let scheduler = scheduler(&gate, 1, 1);
    let ticket = scheduler.ticket().unwrap();
    assert_eq!(scheduler.drain(Duration::from_millis(20)).await, Drained::Cancelled(1));
    assert_eq!(scheduler.stopped().await.kind(), ErrorKind::Unavailable);
    let refused = run_with(&scheduler, &ticket, "1", None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}
