//! What happens to a request, kept for whoever reads its events.
//!
//! The work tells of it as often as it likes and never waits. Only the latest of each stage is kept, so that
//! a reader that is slow, or does not read at all, costs no more memory than there are stages.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::progress::{Observer, Stage};

/// What has not been read yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The place in the queue.
    pub place: Option<usize>,
    /// The work has begun.
    pub started: bool,
    /// By input and stage, how many units are finished, and of how many.
    pub stages: BTreeMap<(usize, Stage), (usize, usize)>,
}

impl News {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Keeps the latest news of a request.
#[derive(Debug, Default)]
pub(super) struct Feed {
    news: Mutex<News>,
    changed: Notify,
}

impl Feed {
    /// What has happened since this was asked last.
    pub fn take(&self) -> News {
        std::mem::take(&mut *self.news())
    }

    /// Resolves once something has happened that was not taken.
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
        // Without a reader that waits, the next one does not.
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
        // One that gave up in between does not take it from the next.
        assert!(timeout(soon, feed.any()).await.is_ok());
    }
}
