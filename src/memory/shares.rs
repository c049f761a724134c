//! How the memory of the process is shared out: one account in parts, so that what is received can
//! never take the memory that is needed to work it off.

use std::sync::Arc;

use super::pool::Pool;

/// Part of the memory that is in no account: the program itself, its threads and connections, what
/// ONNX Runtime takes beside its arenas, and what the allocator loses between buffers.
fn own(limit: u64) -> u64 {
    (128 << 20) + limit / 16
}

/// The parts of the account. Who holds memory of one part waits for a later one only, never for an
/// earlier one, so that no two requests wait for each other: bodies (the server's), inputs, work.
#[derive(Debug, Clone)]
pub struct Account {
    /// Images as they were received, from archives and S3, until their request has ended.
    pub inputs: Arc<Pool>,
    /// Models; and of each request its volumes, windows' sums, masks and results.
    pub work: Arc<Pool>,
}

impl Account {
    /// Parts of `inputs` and `work` bytes; `None` is without bound.
    pub fn new(inputs: u64, work: Option<u64>) -> Self {
        Self {
            inputs: Pool::new("images in bodies, archives and S3", "MAX_INPUT_BYTES", Some(inputs)),
            work: Pool::new("volumes, windows and results", "WORK_MEMORY_BYTES", work),
        }
    }

    /// An account that refuses nothing.
    pub fn unbounded() -> Self {
        Self { inputs: Pool::unbounded(), work: Pool::unbounded() }
    }
}

/// Bytes for inputs unless it is said: a tenth of the memory, and no more than 4 GiB.
pub fn usual_inputs(limit: Option<u64>) -> u64 {
    const MOST: u64 = 4 << 30;
    limit.map_or(MOST, |limit| (limit / 10).min(MOST))
}

/// Bytes for models and work unless it is said: what bodies, inputs and the program leave, and at
/// least a quarter.
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
