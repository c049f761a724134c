//! A decoder of high-throughput JPEG 2000 in the [plain form](super::codestream::Codestream::plain) that
//! DICOM and AWS HealthImaging write, from the text of ISO/IEC 15444-15 (ITU-T T.814) and 15444-1 (T.800).
//!
//! ```text
//! packets ─ block ─┬─ segment     stuffed bytes to flat streams
//!                  ├─ vlc         codewords to the patterns of quads, two blocks in step
//!                  ├─ magnitudes  magnitudes and signs
//!                  └─ refine      the passes that lossless images do without
//! frame ── stripes of blocks, wavelet by rows, pixels
//! ```
//!
//! Coefficients and the wavelet have 16 bits as long as nothing overflows, which is watched; a frame that
//! does is decoded again in 32 bits. Nothing is made up: what a segment lacks is an error of its frame.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod block;
mod codewords;
mod columns;
#[cfg(target_arch = "x86_64")]
mod exponents;
mod frame;
mod instructions;
mod magnitudes;
mod refine;
mod segment;
#[cfg(target_arch = "x86_64")]
mod simd;
mod stripe;
mod tables;
mod vlc;
mod wavelet;

pub use instructions::Instructions;

pub(super) use frame::{Pixels, decode};

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault(pub &'static str);

/// A coefficient does not fit into the arithmetic: of 16 bits, there is another of 32.
const OVERFLOW: Fault = Fault("a coefficient is out of range");

/// There is no memory for a frame.
pub(super) const NO_MEMORY: Fault = Fault("there is no memory for a frame's coefficients");

/// Makes room for `count` values in all, which a list may have.
fn reserve<T>(list: &mut Vec<T>, count: usize) -> Result<(), Fault> {
    list.try_reserve(count.saturating_sub(list.len())).map_err(|_| NO_MEMORY)
}
