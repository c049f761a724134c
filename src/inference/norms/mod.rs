//! Normalisations over large windows, rewritten before a network is loaded on a CPU.
//!
//! ONNX Runtime's CPU kernels of `InstanceNormalization` (and of `GroupNormalization`, which it takes apart)
//! sum all values of a channel or group one after the other in f32. Over millions of voxels that loses most
//! of the last digits: results are off by a hundredth where PyTorch's are by a hundred thousandth, and one
//! label in a thousand is another. Here mean and variance are taken in two stages, over rows of at most
//! [`LONGEST_ROW`](nodes::LONGEST_ROW) values and then over the rows. The file stays as it is.

mod nodes;
mod rewrite;
mod survey;

pub(super) use rewrite::rewritten;
pub(super) use survey::Survey;
