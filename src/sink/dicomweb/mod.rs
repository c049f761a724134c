//! Stores DICOM outputs in an archive by STOW-RS (PS3.18 section 10.5): a data store of AWS
//! HealthImaging, or any DICOMweb service.
//!
//! **Errors and outcomes.** An archive that cannot be reached, or rejects the request as a whole,
//! is an error: nothing is known to be wrong with the outputs, and the same request may be sent
//! again. An instance that the archive refuses individually is not an error but an outcome,
//! [`Status::Failed`] with the archive's reason: it would be refused again, and the caller must not
//! lose the results computed for it.
//!
//! **No duplicates.** UIDs of results are derived, so the same request creates the same instances.
//! HealthImaging does not detect duplicates ("import jobs do not deduplicate SOP Instance storage",
//! developer guide, `understanding-image-sets`). Instances that are already in the archive are
//! therefore looked up and skipped, before the first attempt and before every retry: an attempt
//! whose response was lost may have succeeded. For HealthImaging, the lookup covers all image sets
//! of the series, including those that are not primary. Other archives are queried by QIDO-RS;
//! those that do not support it keep one object per UID themselves.

mod answer;
mod batch;
mod client;
mod credentials;
mod fault;
mod http;
mod lookup;
mod multipart;
mod outcome;
mod reasons;
mod send;
mod sets;
mod sign;
mod stats;
mod store;
mod target;

pub use client::{DicomWeb, DicomWebSettings};
pub use outcome::{ImageSet, Instance, Outcome, Status, Stored};
pub use sign::Signer;
pub use stats::{DicomWebOperation, DicomWebStats};
pub use target::Target;
