//! The latest progress of a request, kept for the reader of its events.
//!
//! The producer reports as often as it likes and never waits. Only the latest update of each stage
//! is kept, so a slow or stalled reader costs no more memory than there are stages.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::progress::{Observer, Stage};

/// Updates that have not been read yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The position in the queue.
    pub place: Option<usize>,
    /// Whether the work has started.
    pub started: bool,
    /// Units done and in total, by input and stage.
    pub stages: BTreeMap<(usize, Stage), (usize, usize)>,
}

impl News {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Collects the latest updates of a request.
#[derive(Debug, Default)]
pub(super) struct Feed {
    news: Mutex<News>,
    changed: Notify,
}

impl Feed {
    /// Takes the updates since the last call.
    pub fn take(&self) -> News {
        std::mem::take(&mut *self.news())
    }

    /// Resolves once there are updates to take.
    pub async fn any(&self) {
        while self.news().is_empty() {
            self.changed.notified().await;
        }
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.news());
        // If no reader is waiting, the next one returns immediately.
        self.changed.notify_one();
    }
}

impl Observer for Feed {
    fn queued(&self, place: usize) {
        self.note(|news| news.place = Some(place));
    }

    fn started(&self) {
        self.note(|news| news.started = true);
    }

    fn advance(&self, input: usize, stage: Stage, done: usize, total: usize) {
        self.note(|news| {
            news.stages.insert((input, stage), (done, total));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn the_latest_of_each_stage_is_kept_and_no_more() {
        let feed = Feed::default();
        for place in [3, 2, 1] {
            feed.queued(place);
        }
        feed.started();
        for done in 0..=100_000 {
            feed.advance(0, Stage::Frames, done, 100_000);
        }
        feed.advance(1, Stage::Metadata, 1, 1);
        feed.advance(0, Stage::Inference, 1, 9);
        let news = feed.take();
        assert_eq!((news.place, news.started), (Some(1), true));
        let stages: Vec<_> = news.stages.into_iter().collect();
        assert_eq!(
            stages,
            [
                ((0, Stage::Frames), (100_000, 100_000)),
                ((0, Stage::Inference), (1, 9)),
                ((1, Stage::Metadata), (1, 1)),
            ]
        );
        assert!(feed.take().is_empty());
    }

    #[tokio::test]
    async fn a_reader_hears_of_what_came_before_and_while_it_waits() {
        let feed = Arc::new(Feed::default());
        feed.started();
        feed.any().await;
        feed.take();
        let soon = Duration::from_millis(20);
        assert!(timeout(soon, feed.any()).await.is_err(), "there was nothing");
        let reader = tokio::spawn({
            let feed = Arc::clone(&feed);
            async move { feed.any().await }
        });
        tokio::task::yield_now().await;
        feed.advance(0, Stage::Frames, 1, 2);
        reader.await.unwrap();
        // A reader that gave up must not consume the notification.
        assert!(timeout(soon, feed.any()).await.is_ok());
    }
}
