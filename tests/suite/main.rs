//! Integration tests in one binary, so that everything is linked only once.

mod account;
mod ahi_source;
mod archives;
mod bundle;
mod codec;
mod common;
mod emulator;
mod end_to_end;
mod frames;
mod goldens;
mod hostile_dicom;
mod ht;
mod inversion;
mod monai_chains;
mod p10;
mod phantom;
mod refusals;
mod regressions;
mod rtstruct;
mod seg;
mod server;
mod transfer_syntaxes;
mod wide_pixels;
