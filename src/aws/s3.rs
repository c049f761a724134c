//! The process-wide client of S3, for reading and writing.

use std::sync::Arc;

use super::allowance::Allowance;
use super::call::{Call, Hedge, Patience};
use super::stats::{CallStats, Counters};

/// The S3 operations in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum S3Operation {
    /// `HeadObject`.
    HeadObject,
    /// `ListObjectsV2`.
    ListObjects,
    /// `GetObject`.
    GetObject,
    /// `PutObject`.
    PutObject,
}

impl S3Operation {
    /// All operations.
    pub const ALL: [Self; 4] =
        [Self::HeadObject, Self::ListObjects, Self::GetObject, Self::PutObject];

    /// Returns the service's name of the operation.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeadObject => "HeadObject",
            Self::ListObjects => "ListObjectsV2",
            Self::GetObject => "GetObject",
            Self::PutObject => "PutObject",
        }
    }
}

/// A client of S3. Clones share their counters.
#[derive(Debug, Clone)]
pub struct S3 {
    sdk: aws_sdk_s3::Client,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    patience: Patience,
    counters: [Counters; S3Operation::ALL.len()],
}

impl S3 {
    /// Wraps the SDK's client, which must attempt each call only once
    /// ([`aws::s3_client`](crate::source::aws::s3_client)).
    pub fn new(sdk: aws_sdk_s3::Client, patience: Patience) -> Self {
        let counters = std::array::from_fn(|_| Counters::default());
        Self { sdk, shared: Arc::new(Shared { patience, counters }) }
    }

    /// Returns a snapshot of one operation's counters. Bytes are counted only for `GetObject`.
    pub fn stats(&self, operation: S3Operation) -> CallStats {
        self.counters(operation).snapshot()
    }

    /// Returns the SDK's client.
    pub fn sdk(&self) -> &aws_sdk_s3::Client {
        &self.sdk
    }

    /// Returns the counters of one operation.
    pub fn counters(&self, operation: S3Operation) -> &Counters {
        &self.shared.counters[operation as usize]
    }

    /// Returns the limits on attempts of calls.
    pub fn patience(&self) -> &Patience {
        &self.shared.patience
    }

    /// Returns the call parameters of `operation`.
    pub fn call<'a>(
        &'a self,
        operation: S3Operation,
        allowance: &'a Allowance,
        hedge: Hedge,
    ) -> Call<'a> {
        Call {
            operation: operation.name(),
            patience: &self.shared.patience,
            limiter: None,
            counters: self.counters(operation),
            allowance,
            hedge,
        }
    }
}
