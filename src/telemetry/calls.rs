//! Metrics of AWS calls, counted by the clients and read on every scrape.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::namer::Namer;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

/// A called service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Service {
    /// AWS HealthImaging.
    #[default]
    HealthImaging,
    /// Amazon S3.
    S3,
    /// Archives accessed by DICOMweb, including HealthImaging's own.
    DicomWeb,
}

/// The counters of a client for one operation.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallSample {
    /// The service.
    pub service: Service,
    /// The service's name of the operation.
    pub operation: &'static str,
    /// Calls made.
    pub calls: u64,
    /// Attempts after the first of a call.
    pub retries: u64,
    /// Requests sent in parallel to a late one.
    pub hedges: u64,
    /// Calls made because the data of an earlier one was corrupt.
    pub refetches: u64,
    /// Responses that rejected a request because of load.
    pub throttles: u64,
    /// Calls given up.
    pub failures: u64,
    /// Bytes received.
    pub bytes: u64,
}

type Source = Box<dyn Fn() -> Vec<CallSample> + Send>;

/// The metrics of all services.
pub(super) struct Calls {
    ahi: Counters,
    s3: Counters,
    dicomweb: Counters,
    source: Mutex<Option<Source>>,
}

#[derive(Default)]
struct Counters {
    calls: Family<Operation, Counter>,
    retries: Family<Operation, Counter>,
    hedges: Family<Operation, Counter>,
    refetches: Family<Operation, Counter>,
    throttles: Family<Operation, Counter>,
    failures: Family<Operation, Counter>,
    bytes: Family<Operation, Counter>,
}

impl Counters {
    fn new(names: &mut Namer, prefix: &str, service: &str) -> Self {
        let mut add = |name: &str, help: &str| {
            names.add(
                &format!("{prefix}_{name}"),
                &format!("{help} ({service})"),
                Family::default(),
            )
        };
        Self {
            calls: add("calls", "Calls"),
            retries: add("retries", "Attempts after a call's first"),
            hedges: add("hedges", "Requests sent beside one that was late"),
            refetches: add("refetches", "Calls made because what came was broken"),
            throttles: add("throttles", "Attempts refused for load"),
            failures: add("failures", "Calls given up"),
            bytes: add("received_bytes", "Bytes of whole bodies"),
        }
    }

    fn show(&self, sample: &CallSample) {
        let labels = Operation { operation: sample.operation };
        for (family, value) in [
            (&self.calls, sample.calls),
            (&self.retries, sample.retries),
            (&self.hedges, sample.hedges),
            (&self.refetches, sample.refetches),
            (&self.throttles, sample.throttles),
            (&self.failures, sample.failures),
            (&self.bytes, sample.bytes),
        ] {
            show(family, &labels, value);
        }
    }
}

/// Sets a counter to the value counted elsewhere.
pub(super) fn show<L>(family: &Family<L, Counter>, labels: &L, value: u64)
where
    L: Clone + std::hash::Hash + Eq,
{
    let counter = family.get_or_create(labels);
    let atomic: &AtomicU64 = counter.inner();
    atomic.store(value, Ordering::Relaxed);
}

impl Calls {
    pub(super) fn new(names: &mut Namer) -> Self {
        Self {
            ahi: Counters::new(names, "ahi", "AWS HealthImaging"),
            s3: Counters::new(names, "s3", "Amazon S3"),
            dicomweb: Counters::new(names, "dicomweb", "archives by DICOMweb"),
            source: Mutex::new(None),
        }
    }

    pub(super) fn read_from(&self, source: impl Fn() -> Vec<CallSample> + Send + 'static) {
        let mut slot = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Box::new(source));
    }

    pub(super) fn take(&self) {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        for sample in source.iter().flat_map(|read| read()) {
            match sample.service {
                Service::HealthImaging => self.ahi.show(&sample),
                Service::S3 => self.s3.show(&sample),
                Service::DicomWeb => self.dicomweb.show(&sample),
            }
        }
    }
}
