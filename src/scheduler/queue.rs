//! The order of waiting requests, so that each can be told its position.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The waiting requests, in order of arrival.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Notified whenever a request leaves.
    moved: watch::Sender<()>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// In ascending order.
    numbers: VecDeque<u64>,
}

/// The position of a request in the queue, released on drop.
pub(super) struct Place<'q> {
    queue: &'q Queue,
    number: u64,
    moved: watch::Receiver<()>,
}

impl Queue {
    /// Appends a request to the queue.
    pub fn enter(&self) -> Place<'_> {
        let moved = self.moved.subscribe();
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.numbers.push_back(number);
        Place { queue: self, number, moved }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Returns the current position, starting at 1.
    pub fn number(&self) -> usize {
        let ahead = self.queue.waiting().numbers.partition_point(|other| *other < self.number);
        ahead + 1
    }

    /// Resolves once a request has left the queue since the last call.
    pub async fn moved(&mut self) {
        if self.moved.changed().await.is_err() {
            // Unreachable: the queue outlives its places.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting();
        if let Ok(index) = waiting.numbers.binary_search(&self.number) {
            waiting.numbers.remove(index);
        }
        drop(waiting);
        self.queue.moved.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_move_up_as_others_leave() {
        let queue = Queue::default();
        let (first, second, mut third) = (queue.enter(), queue.enter(), queue.enter());
        assert_eq!((first.number(), second.number(), third.number()), (1, 2, 3));
        drop(second);
        third.moved().await;
        assert_eq!((first.number(), third.number()), (1, 2));
        drop(first);
        third.moved().await;
        let fourth = queue.enter();
        assert_eq!((third.number(), fourth.number()), (1, 2));
        drop(third);
        assert_eq!(fourth.number(), 1);
    }
}
