//! DICOM outputs into an archive by STOW-RS (PS3.18 section 10.5): a data store of AWS HealthImaging, or
//! any DICOMweb service.
//!
//! **What an error is.** An archive that cannot be asked, or does not take the request as a whole, is an
//! error: nothing is known to be wrong with the outputs, and the same request may be sent again. An
//! instance that the archive refuses by name is no error but an outcome, [`Status::Failed`] with the
//! archive's reason: sending it again would be refused again, and the caller must not lose what was computed
//! for it.
//!
//! **Nothing twice.** UIDs of results are derived, so the same request makes the same instances. HealthImaging
//! does not tell duplicates ("import jobs do not deduplicate SOP Instance storage", developer guide,
//! `understanding-image-sets`), so instances that are in the archive are looked up and left out, before the
//! first attempt and before every further one: an attempt whose answer was lost may have succeeded. For
//! HealthImaging all image sets of the series are looked at, also those that are not primary; other
//! archives are asked by QIDO-RS, and where they do not answer it they keep one object of a UID by
//! themselves.

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
