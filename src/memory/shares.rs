//! Divides the memory of the process into separate accounts, so that received data can never use up
//! the memory needed to process it.

use std::sync::Arc;

use super::pool::Pool;

/// Returns the memory outside the accounts: the program itself, its threads and connections, what
/// ONNX Runtime allocates outside its arenas, and allocator fragmentation.
fn own(limit: u64) -> u64 {
    (128 << 20) + limit / 16
}

/// The accounts. A holder of memory in one account waits only for later ones, never for earlier
/// ones, so that no two requests deadlock: bodies (the server's), inputs, work.
#[derive(Debug, Clone)]
pub struct Account {
    /// Received images, from archives and S3, until the end of their request.
    pub inputs: Arc<Pool>,
    /// Models, and the volumes, window sums, masks and results of requests.
    pub work: Arc<Pool>,
}

impl Account {
    /// Creates accounts of `inputs` and `work` bytes; `None` means unlimited.
    pub fn new(inputs: u64, work: Option<u64>) -> Self {
        Self {
            inputs: Pool::new("images in bodies, archives and S3", "MAX_INPUT_BYTES", Some(inputs)),
            work: Pool::new("volumes, windows and results", "WORK_MEMORY_BYTES", work),
        }
    }

    /// Creates accounts without limits.
    pub fn unbounded() -> Self {
        Self { inputs: Pool::unbounded(), work: Pool::unbounded() }
    }
}

/// Returns the default size of the inputs account: a tenth of the memory, at most 4 GiB.
pub fn usual_inputs(limit: Option<u64>) -> u64 {
    const MOST: u64 = 4 << 30;
    limit.map_or(MOST, |limit| (limit / 10).min(MOST))
}

/// Returns the default size of the work account: what bodies, inputs and the program leave, and at
/// least a quarter of the memory.
pub fn usual_work(limit: u64, bodies: u64, inputs: u64) -> u64 {
    let others = own(limit).saturating_add(bodies).saturating_add(inputs);
    limit.saturating_sub(others).max(limit / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_no_more_than_the_whole() {
        const GIB: u64 = 1 << 30;
        for limit in [GIB, 4 * GIB, 16 * GIB, 256 * GIB] {
            let (bodies, inputs) = (GIB.min(limit / 4), usual_inputs(Some(limit)));
            let work = usual_work(limit, bodies, inputs);
            assert!(own(limit) + bodies + inputs + work <= limit, "{limit}");
            assert!(work >= limit * 2 / 5, "{work} of {limit}");
        }
        assert_eq!(usual_inputs(None), 4 * GIB);
        assert_eq!(usual_work(GIB, GIB, GIB), GIB / 4);
    }
}
