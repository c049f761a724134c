//! The layer that all calls of AWS services pass through: one mapping of faults, one retry layer,
//! and the retry budget of a request. `source` and `sink` make the calls.
//!
//! The SDK's own retries are disabled: they do not cover the response's body, and the attempts of
//! two layers multiply.

pub mod allowance;
pub mod body;
pub mod call;
pub mod fault;
pub mod limiter;
pub mod s3;
pub mod stats;

pub use allowance::Allowance;
pub use call::{Call, Hedge, Patience};
pub use fault::{Fault, Retry};
pub use limiter::{Rate, RateLimiter};
pub use s3::{S3, S3Operation};
pub use stats::{CallStats, Counters};
