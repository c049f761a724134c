//! Permits for GPU memory. A session is created on a GPU only if there is room for all the memory it
//! may use, so no model fails in the middle of a request because another one has grown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// The memory that the sessions of all models may use on each GPU together.
#[derive(Debug)]
pub struct GpuPermits {
    limit: usize,
    used: Mutex<BTreeMap<i32, usize>>,
}

impl GpuPermits {
    /// Creates permits for `limit` bytes on each GPU.
    pub fn of(limit: usize) -> Self {
        Self { limit, used: Mutex::default() }
    }

    /// Returns the bytes currently permitted on one GPU.
    pub fn used(&self, device: i32) -> usize {
        self.lock().get(&device).copied().unwrap_or(0)
    }

    /// Acquires a permit for `bytes` on the first of `devices` that has room. Dropping the permit
    /// releases it.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] if no device has room; the message says what is in use on each.
    pub fn take(
        self: &Arc<Self>,
        devices: impl IntoIterator<Item = i32>,
        bytes: usize,
    ) -> Result<Permit> {
        let mut used = self.lock();
        let mut full = Vec::new();
        for device in devices {
            let taken = used.get(&device).copied().unwrap_or(0);
            match taken.checked_add(bytes) {
                Some(wanted) if wanted <= self.limit => {
                    used.insert(device, wanted);
                    drop(used);
                    return Ok(Permit { permits: Arc::clone(self), device, bytes });
                }
                _ => full.push(format!("GPU {device}: {taken}")),
            }
        }
        Err(Error::new(
            ErrorKind::OutOfMemory,
            format!(
                "the model may take {bytes} bytes of a GPU (GPU_MEMORY_BYTES); of {} for models \
                 (GPU_MEMORY_BUDGET_BYTES) are in use: {}; unload another model",
                self.limit,
                full.join(", ")
            ),
        )
        .with("neededBytes", bytes)
        .with("budgetBytes", self.limit))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, usize>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Permitted bytes on one GPU, released on drop.
#[derive(Debug)]
pub struct Permit {
    permits: Arc<GpuPermits>,
    device: i32,
    bytes: usize,
}

impl Permit {
    /// Returns the GPU's device number.
    pub fn device(&self) -> i32 {
        self.device
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(used) = self.permits.lock().get_mut(&self.device) {
            *used = used.saturating_sub(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_first_gpu_with_room_is_taken_and_a_full_one_passed_over() {
        let permits = Arc::new(GpuPermits::of(100));
        let first = permits.take([0, 1], 60).unwrap();
        let second = permits.take([0, 1], 60).unwrap();
        let third = permits.take([0, 1], 40).unwrap();
        assert_eq!([&first, &second, &third].map(Permit::device), [0, 1, 0]);
        assert_eq!([0, 1, 2].map(|device| permits.used(device)), [100, 60, 0]);
        let refused = permits.take([0, 1], 41).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::OutOfMemory);
        assert!(refused.message().contains("GPU 0: 100, GPU 1: 60"), "{refused}");
        assert_eq!(permits.used(1), 60, "a refusal takes nothing");
        drop(first);
        assert_eq!(permits.take([0, 1], 41).unwrap().device(), 0);
        assert!(permits.take([1], usize::MAX).is_err());
        assert!(permits.take([], 1).is_err());
    }

    #[test]
    fn no_more_is_permitted_at_once_than_there_is() {
        let permits = Arc::new(GpuPermits::of(100));
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut taken = 0;
                    while taken < 50 {
                        let Ok(_permit) = permits.take([3], 30) else {
                            std::thread::yield_now();
                            continue;
                        };
                        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        taken += 1;
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(permits.used(3), 0);
    }
}
