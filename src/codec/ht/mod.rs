//! A decoder of high-throughput JPEG 2000 in the [plain form](super::codestream::Codestream::plain)
//! that DICOM and AWS HealthImaging write, implemented from the text of ISO/IEC 15444-15 (ITU-T
//! T.814) and 15444-1 (T.800).
//!
//! ```text
//! packets ─ block ─┬─ segment     stuffed bytes to flat streams
//!                  ├─ vlc         codewords to the patterns of quads, three blocks in step
//!                  ├─ magnitudes  magnitudes and signs
//!                  └─ refine      the passes that lossless images do without
//! frame ── stripes of blocks, wavelet by rows, pixels
//! ```
//!
//! Coefficients and the wavelet use 16 bits and check for overflow; a frame that overflows is
//! decoded again in 32 bits. Nothing is invented: a segment that is too short fails the frame,
//! except that encoders may, by the standard, omit trailing ones of magnitudes and trailing zeros
//! of refinement.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod block;
mod codewords;
mod columns;
#[cfg(target_arch = "x86_64")]
mod exponents;
mod fault;
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

pub(super) use fault::{Fault, NO_MEMORY};
pub(super) use frame::{Pixels, decode};
