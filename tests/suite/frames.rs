//! Loading frames into a volume: sources that misbehave, and callers that go away.

use std::sync::Arc;
use std::time::Duration;

use ahi_inference::dicom::{FrameKey, Series};
use ahi_inference::error::{ErrorKind, Result};
use ahi_inference::memory::Account;
use ahi_inference::pipeline::{Holding, frames};
use ahi_inference::policy::{Policy, Wanted};
use ahi_inference::progress::Silent;
use ahi_inference::source::dicom_files::DicomFiles;
use ahi_inference::source::{EncodedFrame, ImageSource};
use ahi_inference::volume::{Plan, plan};
use futures::stream::{self, BoxStream, StreamExt};

use super::end_to_end::phantom;

/// How a source misbehaves.
#[derive(Clone, Copy)]
enum Way {
    /// Repeats the first frame at the end.
    Twice,
    /// Omits the last frame.
    NotAll,
    /// Delivers half of the frames, then stalls.
    Stalled,
}

struct Odd {
    files: DicomFiles,
    way: Way,
}

#[async_trait::async_trait]
impl ImageSource for Odd {
    async fn series(&self) -> Result<Series> {
        self.files.series().await
    }

    fn frames(
        &self,
        series: &Series,
        mut keys: Vec<FrameKey>,
    ) -> BoxStream<'static, Result<EncodedFrame>> {
        let first = keys[0];
        match self.way {
            Way::Twice => {
                let again = self.files.frames(series, vec![first]);
                self.files.frames(series, keys).chain(again).boxed()
            }
            Way::NotAll => {
                keys.pop();
                self.files.frames(series, keys)
            }
            Way::Stalled => {
                keys.truncate(keys.len() / 2);
                self.files.frames(series, keys).chain(stream::pending()).boxed()
            }
        }
    }
}

struct Case {
    source: Odd,
    series: Arc<Series>,
    plan: Arc<Plan>,
    _folder: tempfile::TempDir,
}

impl Case {
    async fn new(way: Way) -> Self {
        let folder = tempfile::tempdir().unwrap();
        phantom(&folder.path().join("p"), "32", "8").await;
        let source = Odd { files: DicomFiles::new(folder.path().join("p/dicom"), None), way };
        let series = Arc::new(source.series().await.unwrap());
        let plan = Arc::new(plan(&series, &Policy::default(), Wanted::Any).unwrap().remove(0));
        Self { source, series, plan, _folder: folder }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_comes_twice_or_never_is_an_error() {
    for (way, what) in [(Way::Twice, "came twice"), (Way::NotAll, "is missing")] {
        let Case { source, series, plan, _folder } = Case::new(way).await;
        let loaded =
            frames::load(&source, &series, &plan, &Silent, &Holding::nothing(), false).await;
        let error = match loaded.and_then(|(volume, _)| volume.into_physical()) {
            Ok(_) => panic!("{what}: it made a volume"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains(what), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_volume_holds_is_given_back_when_nobody_waits_for_it() {
    let Case { source, series, plan, _folder } = Case::new(Way::Stalled).await;
    let (account, places) = (Account::new(1 << 20, Some(8 << 20)), Arc::new(()));
    let grant = account.work.take(4 << 20).await.unwrap();
    let holding = Holding::new(grant, places.clone());
    let load = frames::load(&source, &series, &plan, &Silent, &holding, false);
    let soon = Duration::from_millis(300);
    assert!(tokio::time::timeout(soon, load).await.is_err(), "half of the frames never come");
    drop(holding);
    for _ in 0..600 {
        if account.work.used() == 0 && Arc::strong_count(&places) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} bytes are never given back", account.work.used());
}
