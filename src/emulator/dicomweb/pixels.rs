//! The frames of an instance in a requested transfer syntax.

use bytes::Bytes;
use dicom_dictionary_std::{tags, uids};
use rayon::prelude::*;

use super::find::typed;
use super::negotiate::Syntax;
use crate::codec::{self, FrameFormat};
use crate::dicom::Instance;
use crate::dicom::ahi_metadata::FlatInstance;
use crate::emulator::binary;
use crate::emulator::failure::Failure;
use crate::emulator::service::Service;
use crate::error::{Error, ErrorKind, Result};

/// An instance with its stored frames.
pub(super) struct Pixels {
    pub instance: Instance,
    frames: Vec<Bytes>,
    /// The format for decoding, or why the frames cannot be decoded.
    format: Result<FrameFormat>,
}

impl Pixels {
    /// Reads the frames with these zero-based numbers, or all of them.
    pub fn read(
        service: &Service,
        datastore: &str,
        image_set: &str,
        flat: &FlatInstance,
        numbers: Option<&[usize]>,
    ) -> Result<Self, Failure> {
        let instance = typed(flat)?;
        let ids: Vec<&str> = flat.frame_ids().collect();
        let ids = match numbers {
            None => ids,
            Some(numbers) => {
                numbers.iter().filter_map(|number| ids.get(*number).copied()).collect()
            }
        };
        let read = |id: &str| {
            service.store.frame(datastore, image_set, id)?.ok_or_else(|| {
                Error::new(ErrorKind::Io, format!("the frame {id} is not in the store"))
            })
        };
        let frames = ids.into_iter().map(read).collect::<Result<_>>()?;
        let format = FrameFormat::from_dataset(&instance.dataset);
        Ok(Self { instance, frames, format })
    }

    /// Returns the transfer syntax of the stored frames.
    pub fn stored(&self) -> &str {
        &self.instance.transfer_syntax
    }

    /// Returns the transfer syntax of the response; `None` if the requested one is not available.
    pub fn answered<'a>(&'a self, wanted: &'a Syntax) -> Option<&'a str> {
        let stored = self.stored();
        let explicit = uids::EXPLICIT_VR_LITTLE_ENDIAN;
        let decodes = || (stored == explicit && !self.frames.is_empty()) || self.can_decode();
        match wanted {
            Syntax::Stored => Some(stored),
            Syntax::Unsaid if decodes() => Some(explicit),
            Syntax::Unsaid => Some(stored),
            Syntax::Named(uid) if uid == stored => Some(stored),
            Syntax::Named(uid) if uid == explicit => decodes().then_some(explicit),
            // Losslessly stored frames are also available as JPEG 2000.
            Syntax::Named(uid) if uid == uids::JPEG2000_LOSSLESS => {
                (stored == uids::HTJ2K_LOSSLESS_RPCL).then_some(uids::JPEG2000_LOSSLESS)
            }
            Syntax::Named(_) => None,
        }
    }

    fn can_decode(&self) -> bool {
        // An object without an image has nothing to decode; an image without frames cannot be
        // decoded.
        if self.frames.is_empty() {
            return self.instance.dataset.get(tags::ROWS).is_none();
        }
        let Ok(format) = &self.format else { return false };
        let is_known = codec::transfer_syntaxes().iter().any(|entry| entry.uid == self.stored());
        // The first frame is representative.
        let decodes = |data: &Bytes| codec::decode(self.stored(), data, format).is_ok();
        is_known && self.frames.first().is_none_or(decodes)
    }

    /// Returns the frames in a transfer syntax returned by [`answered`](Self::answered).
    pub fn frames(&self, syntax: &str) -> Result<Vec<Bytes>> {
        if syntax == self.stored() {
            return Ok(self.frames.clone());
        }
        let format = self.format.as_ref().map_err(Error::duplicate)?;
        let one = |data: &Bytes| {
            let samples = codec::decode(self.stored(), data, format)?;
            if syntax == uids::JPEG2000_LOSSLESS {
                return Ok(codec::encode_jpeg2000(&samples, format)?.into());
            }
            Ok(samples.to_le_bytes(format.bits_allocated).into())
        };
        self.frames.par_iter().map(one).collect()
    }

    /// Returns the value of native Pixel Data, without padding.
    pub fn native(&self) -> Result<Vec<u8>> {
        let frames = self.frames(uids::EXPLICIT_VR_LITTLE_ENDIAN)?;
        if let Some(bits) = binary::bits_of_a_frame(&self.instance.dataset) {
            return Ok(binary::join(&frames, bits));
        }
        Ok(frames.concat())
    }
}
