//! Memory accounting as requests see it: refusals before anything is fetched, and grants that are held until the
//! work has really ended.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ahi_inference::error::ErrorKind;
use ahi_inference::memory::Account;
use ahi_inference::pipeline::{self, Job};
use ahi_inference::progress::{Progress, Silent, Stage};
use ahi_inference::registry::{Lease, LoadOptions, Model};
use ahi_inference::source::dicom_files::DicomFiles;

use super::end_to_end::phantom;

fn model() -> Lease<Model> {
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/ct_phantom");
    Lease::unregistered(Model::load("phantom", &bundle, &LoadOptions::default()).unwrap())
}

fn job(account: &Account, places: &Arc<()>, progress: Arc<dyn Progress>) -> Job {
    Job {
        input: None,
        progress,
        account: account.clone(),
        places: places.clone(),
        ..Job::of(model())
    }
}

/// Blocks the first window until opened, and reports cancellation from then on.
#[derive(Default)]
struct Gate {
    reached: AtomicBool,
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl Progress for Gate {
    fn advance(&self, stage: Stage, _: usize, _: usize) {
        if stage == Stage::Inference {
            self.reached.store(true, Ordering::SeqCst);
            let open = self.open.lock().unwrap();
            drop(self.changed.wait_while(open, |open| !*open).unwrap());
        }
    }

    fn is_cancelled(&self) -> bool {
        *self.open.lock().unwrap()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_place_are_held_until_the_work_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    phantom(&folder.path().join("p"), "96", "60").await;
    let (account, places) = (Account::new(1 << 30, Some(1 << 30)), Arc::new(()));
    let gate = Arc::new(Gate::default());
    let job = job(&account, &places, gate.clone());
    let files = folder.path().join("p/dicom");
    let running =
        tokio::spawn(async move { pipeline::run(&DicomFiles::new(files, None), None, job).await });
    until("the network never ran", || gate.reached.load(Ordering::SeqCst)).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    // The caller is gone, but a thread still computes.
    assert!(account.work.used() > 0 && Arc::strong_count(&places) > 1);
    gate.open();
    until("it is never given back", || account.work.used() == 0 && Arc::strong_count(&places) == 1)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_fits_is_refused_and_what_does_not_fit_now_waits() {
    let folder = tempfile::tempdir().unwrap();
    phantom(&folder.path().join("p"), "96", "60").await;
    let source = || DicomFiles::new(folder.path().join("p/dicom"), None);
    let places = Arc::new(());
    let small = Account::new(1 << 30, Some(4 << 20));
    let refused = pipeline::run(&source(), None, job(&small, &places, Arc::new(Silent))).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{error}");
    for detail in ["attribute", "voxels", "neededBytes", "limitBytes", "setting"] {
        assert!(error.details().contains_key(detail), "{detail}: {error:?}");
    }
    let needed = error.details()["neededBytes"].as_u64().unwrap();
    let enough = Account::new(1 << 30, Some(needed + (1 << 20)));
    let held = enough.work.take(2 << 20).await.unwrap();
    let job = job(&enough, &places, Arc::new(Silent));
    let files = source();
    let waiting = pipeline::run(&files, None, job);
    tokio::pin!(waiting);
    let soon = Duration::from_millis(500);
    assert!(tokio::time::timeout(soon, &mut waiting).await.is_err(), "it did not wait");
    drop(held);
    let outcome = waiting.await.unwrap();
    let outputs: usize =
        outcome.iter().flat_map(|one| &one.artifacts).map(|one| one.bytes.len()).sum();
    let used = enough.work.used();
    assert!(used >= outputs as u64 && used < needed / 4, "{used} bytes for {outputs} of outputs");
    drop(outcome);
    assert_eq!(enough.work.used(), 0);
}
