//! Memory for the bodies of requests and for the answers to bodies of many lines.
//!
//! It is charged as bytes come, never by what a client announces, and given back with the bytes
//! themselves: what is frozen out of a [`Buffer`] holds its charge until the last of its slices is gone,
//! whoever has it by then. The first part of each body has a share of its own, so that large ones
//! do not keep out the small ones, which most requests are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::error::{Error, ErrorKind, Result};

/// Bytes of one permit.
const UNIT: usize = 1 << 10;

/// What of each body has a share of its own: any usual request in JSON.
const SMALL: usize = 1 << 20;

/// The largest such share.
const LARGEST_SHARE: usize = 64 << 20;

/// The least and the usual step in which a buffer grows.
const STEPS: (usize, usize) = (4 << 10, 256 << 10);

/// Room for so many bytes in sum.
#[derive(Debug, Clone)]
pub struct Room {
    limit: usize,
    wait: Duration,
    /// For the first [`SMALL`] bytes of each.
    share: Arc<Semaphore>,
    /// For all the rest, as much as the largest body takes.
    main: Arc<Semaphore>,
    whole: usize,
}

/// A part of a room, given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    room: Room,
    bytes: usize,
    /// How long it has waited for others so far.
    waited: Duration,
    share: Option<OwnedSemaphorePermit>,
    main: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Room for bodies of `limit` bytes in sum, and an eighth of that for the beginnings of others. Who
    /// finds none waits for `wait` in sum.
    pub fn new(limit: usize, wait: Duration) -> Self {
        let (main, share) = (units(limit), units((limit / 8).min(LARGEST_SHARE)));
        Self {
            limit,
            wait,
            share: Arc::new(Semaphore::new(share)),
            main: Arc::new(Semaphore::new(main)),
            whole: main + share,
        }
    }

    /// The most that one may take.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that are taken now.
    pub fn used(&self) -> u64 {
        let free = self.share.available_permits() + self.main.available_permits();
        (self.whole.saturating_sub(free) as u64).saturating_mul(UNIT as u64)
    }

    /// Takes `bytes`, once they are there.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] where they are not there in time.
    pub async fn take(&self, bytes: usize) -> Result<Permit> {
        let mut permit = self.nothing();
        permit.grow_to(bytes).await?;
        Ok(permit)
    }

    /// A permit that holds nothing yet.
    fn nothing(&self) -> Permit {
        Permit { room: self.clone(), bytes: 0, waited: Duration::ZERO, share: None, main: None }
    }

    fn full(&self) -> Error {
        Error::new(
            ErrorKind::Overloaded,
            format!(
                "the bodies of other requests hold the {} bytes that there are for them \
                 (MAX_BODY_BYTES); send this one again later",
                self.limit
            ),
        )
        .with("limit", self.limit)
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT).min(u32::MAX as usize / 2).min(Semaphore::MAX_PERMITS / 2)
}

impl Permit {
    /// Holds `bytes` in sum from now on, where that is more than it did. Nobody gets more than all there
    /// is, so that one that is alone never waits.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] where they are not there in time.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<()> {
        let bytes = bytes.min(self.room.limit);
        let more = units(bytes).saturating_sub(units(self.bytes));
        let count = u32::try_from(more).unwrap_or(u32::MAX);
        if count == 0 {
            self.bytes = self.bytes.max(bytes);
            return Ok(());
        }
        let small = bytes <= SMALL;
        let own = small.then(|| Arc::clone(&self.room.share).try_acquire_many_owned(count).ok());
        if let Some(Some(permit)) = own {
            merge(&mut self.share, permit);
        } else {
            // In sum: bodies that have all begun and wait for each other are soon told apart.
            let left = self.room.wait.saturating_sub(self.waited);
            let started = Instant::now();
            let waiting = Arc::clone(&self.room.main).acquire_many_owned(count);
            let permit = timeout(left, waiting).await.map_err(|_| self.room.full())?;
            self.waited += started.elapsed();
            merge(
                &mut self.main,
                permit.map_err(|_| Error::internal("the room for bodies is closed"))?,
            );
        }
        self.bytes = bytes;
        Ok(())
    }
}

fn merge(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(permit) => permit.merge(more),
        None => *held = Some(more),
    }
}

/// Bytes that are charged to a room as they come.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    permit: Permit,
    most: usize,
}

impl Buffer {
    /// An empty buffer that will hold `most` bytes at most, as far as that is known.
    pub fn new(room: &Room, most: usize) -> Self {
        Self { bytes: Vec::new(), permit: room.nothing(), most }
    }

    /// Bytes it holds.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Charges `bytes` more than it holds, for what must have its place later.
    ///
    /// # Errors
    /// Those of [`Permit::grow_to`].
    pub async fn charge(&mut self, bytes: usize) -> Result<()> {
        self.permit.grow_to(self.bytes.len().saturating_add(bytes)).await
    }

    /// Appends `more`.
    ///
    /// # Errors
    /// Those of [`Permit::grow_to`], and [`ErrorKind::OutOfMemory`].
    pub async fn extend(&mut self, more: &[u8]) -> Result<()> {
        let needed = self.bytes.len().saturating_add(more.len());
        if needed > self.bytes.capacity() {
            // Large buffers grow by an eighth, which the allocator does without copying.
            let step = needed.next_power_of_two().clamp(STEPS.0, STEPS.1).max(needed / 8);
            let mut target = needed.saturating_add(step).min(self.most).max(needed);
            // What is charged already suffices where it holds what is needed.
            if needed <= self.permit.bytes {
                target = target.min(self.permit.bytes);
            }
            self.permit.grow_to(target).await?;
            let grown = self.bytes.try_reserve_exact(target - self.bytes.len());
            grown.map_err(|e| {
                Error::new(ErrorKind::OutOfMemory, "there is no memory for the body").caused_by(e)
            })?;
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// The bytes, which hold their charge as long as any slice of them is there.
    pub fn freeze(self) -> Bytes {
        if self.bytes.is_empty() { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_does_not_fit_waits_and_is_refused_in_the_end() {
        let room = Room::new(8 << 20, SOON);
        let first = room.take(6 << 20).await.unwrap();
        assert_eq!(room.used(), 6 << 20);
        let refused = room.take(4 << 20).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        // The beginning of a body has its own share, an eighth here.
        let small = room.take(SMALL).await.unwrap();
        let another = room.take(SMALL).await.unwrap();
        drop((first, small, another));
        assert_eq!(room.used(), 0);
        assert!(room.take(usize::MAX).await.is_ok(), "no more than all of it");
    }

    #[tokio::test]
    async fn bytes_hold_their_charge_until_the_last_slice_is_gone() {
        let room = Room::new(8 << 20, SOON);
        let mut buffer = Buffer::new(&room, 3 << 20);
        assert_eq!(room.used(), 0, "nothing is charged before it comes");
        for _ in 0..3 {
            buffer.extend(&[7; 1 << 20]).await.unwrap();
        }
        assert_eq!(buffer.len(), 3 << 20);
        let slice = buffer.freeze().slice(5..6);
        assert_eq!((room.used(), slice[0]), (3 << 20, 7));
        drop(slice);
        assert_eq!(room.used(), 0);
    }

    #[tokio::test]
    async fn bodies_that_wait_for_each_other_are_told_apart_in_time() {
        let room = Room::new(8 << 20, Duration::from_millis(300));
        let started = Instant::now();
        let one = || async {
            let mut buffer = Buffer::new(&room, 6 << 20);
            for _ in 0..6 * 64 {
                buffer.extend(&[0; 16 << 10]).await?;
                tokio::task::yield_now().await;
            }
            Ok::<_, Error>(())
        };
        let all = futures::future::join_all((0..8).map(|_| one())).await;
        assert!(all.iter().any(Result::is_ok), "nobody got through");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_buffer_charges_little_more_than_it_holds() {
        let room = Room::new(64 << 20, SOON);
        let mut buffer = Buffer::new(&room, 64 << 20);
        buffer.extend(b"{}").await.unwrap();
        assert!(room.used() <= 8 << 10, "{}", room.used());
        for _ in 0..1000 {
            buffer.extend(&[0; 20_000]).await.unwrap();
        }
        assert!(room.used() <= 20_000_002 / 8 * 9 + (1 << 20), "{}", room.used());
    }
}
