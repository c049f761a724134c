//! A memory limit for request bodies and for responses to batch bodies.
//!
//! Memory is charged as bytes arrive, never by the announced length, and released with the bytes
//! themselves: bytes frozen from a [`Buffer`] hold their charge until their last slice is dropped.
//! The first part of each body is charged to a separate share, so that large bodies do not starve
//! small ones, which are most requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::error::{Error, ErrorKind, Result};

/// Bytes per permit.
const UNIT: usize = 1 << 10;

/// The part of each body charged to the separate share: larger than any usual JSON request.
const SMALL: usize = 1 << 20;

/// Maximum size of the separate share.
const LARGEST_SHARE: usize = 64 << 20;

/// Minimum and usual growth step of a buffer.
const STEPS: (usize, usize) = (4 << 10, 256 << 10);

/// A memory pool of limited size.
#[derive(Debug, Clone)]
pub struct Room {
    limit: usize,
    wait: Duration,
    /// For the first [`SMALL`] bytes of each body.
    share: Arc<Semaphore>,
    /// For everything else; as large as the largest body.
    main: Arc<Semaphore>,
    whole: usize,
}

/// A reservation in a room, released on drop.
#[derive(Debug)]
pub struct Permit {
    room: Room,
    bytes: usize,
    /// Total time spent waiting so far.
    waited: Duration,
    share: Option<OwnedSemaphorePermit>,
    main: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Creates a room for bodies of `limit` bytes in total, plus up to an eighth of that as the share
    /// for the first part of each body. A permit waits for memory for at most `wait` in total.
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

    /// Returns the most that one permit can hold.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the number of bytes in use.
    pub fn used(&self) -> u64 {
        let free = self.share.available_permits() + self.main.available_permits();
        (self.whole.saturating_sub(free) as u64).saturating_mul(UNIT as u64)
    }

    /// Reserves `bytes`, waiting until they are free.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] if they are not free in time.
    pub async fn take(&self, bytes: usize) -> Result<Permit> {
        let mut permit = self.nothing();
        permit.grow_to(bytes).await?;
        Ok(permit)
    }

    /// Returns an empty permit.
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
    /// Grows the reservation to `bytes` in total, if that is more than it holds. It is capped at
    /// the limit of the room, so that a lone request never waits.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] if the memory is not free in time.
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
            // The wait is limited in total: if all bodies wait for each other, some time out soon.
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

/// A byte buffer charged to a room as it grows.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    permit: Permit,
    most: usize,
}

impl Buffer {
    /// Creates an empty buffer with an expected size of at most `most` bytes.
    pub fn new(room: &Room, most: usize) -> Self {
        Self { bytes: Vec::new(), permit: room.nothing(), most }
    }

    /// Returns the number of bytes in the buffer.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Charges `bytes` beyond the current length, for data appended later.
    ///
    /// # Errors
    /// Propagates the errors of [`Permit::grow_to`].
    pub async fn charge(&mut self, bytes: usize) -> Result<()> {
        self.permit.grow_to(self.bytes.len().saturating_add(bytes)).await
    }

    /// Appends `more`.
    ///
    /// # Errors
    /// Propagates the errors of [`Permit::grow_to`], and fails with [`ErrorKind::OutOfMemory`].
    pub async fn extend(&mut self, more: &[u8]) -> Result<()> {
        let needed = self.bytes.len().saturating_add(more.len());
        if needed > self.bytes.capacity() {
            // Large buffers grow by an eighth; the allocator can extend those without copying.
            let step = needed.next_power_of_two().clamp(STEPS.0, STEPS.1).max(needed / 8);
            let mut target = needed.saturating_add(step).min(self.most).max(needed);
            // Stays within the existing charge if that is sufficient.
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

    /// Returns the bytes, which hold their charge until their last slice is dropped.
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
        // The first part of a body has a separate share, an eighth here.
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
