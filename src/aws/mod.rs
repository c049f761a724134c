//! What every call of an AWS service goes through, whoever makes it: one mapping of faults, one layer of
//! attempts, and what a request may spend on them. `source` and `writers` make the calls.
//!
//! The SDK's own retries are off: they end where a response's body begins, and attempts of two layers
//! multiply.

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
