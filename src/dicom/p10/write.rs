//! Writes DICOM Part 10 files frame by frame, so that at most one frame is in memory.

use std::io::{Seek, SeekFrom, Write};

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::FileMetaTableBuilder;
use dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN;

use crate::dicom::pixel_data::{float_pixels, is_pixel_data};
use crate::dicom::{Attributes, Dataset};
use crate::error::{Error, ErrorKind, Result};

/// Maximum size of an element's value in bytes: its length is 32 bits, even, and not the value that
/// means undefined (PS3.5 section 7.1.1).
pub const MOST_BYTES: u64 = u32::MAX as u64 - 1;

/// Form of the pixel data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelForm {
    /// No pixel data.
    None,
    /// Native frames with this many bytes in total.
    Native(u64),
    /// This many encoded frames, each a fragment after a Basic Offset Table (PS3.5 annex A.4).
    Encapsulated(usize),
}

/// A file that is being written.
pub struct P10Writer<W> {
    out: W,
    form: PixelForm,
    /// Attributes that follow the pixel data.
    rest: Dataset,
    /// Position of the Basic Offset Table, and its content.
    table: (u64, Vec<u32>),
    written: u64,
    /// Element and value representation of native pixel data.
    native: (Tag, VR),
}

impl<W: Write + Seek> P10Writer<W> {
    /// Writes everything before the frames. `dataset` is a complete data set without pixel data.
    /// Its elements are written in explicit VR little endian, which every transfer syntax that
    /// `form` allows uses.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] if the data set lacks its identifiers or cannot be written;
    /// [`ErrorKind::PayloadTooLarge`] beyond 4 GiB of pixel data; [`ErrorKind::Io`].
    pub fn new(out: W, dataset: Dataset, transfer_syntax: &str, form: PixelForm) -> Result<Self> {
        if let PixelForm::Native(bytes) = form {
            check_bytes(bytes)?;
        }
        let meta = FileMetaTableBuilder::new()
            .media_storage_sop_class_uid(dataset.required_text(tags::SOP_CLASS_UID)?)
            .media_storage_sop_instance_uid(dataset.required_text(tags::SOP_INSTANCE_UID)?)
            .transfer_syntax(transfer_syntax)
            .build()
            .map_err(|_| unwritable())?;
        let words = dataset.integer(tags::BITS_ALLOCATED).unwrap_or(16) > 8;
        let native = match float_pixels(&dataset) {
            Some(float) => (float.tag, float.vr),
            None => (tags::PIXEL_DATA, if words { VR::OW } else { VR::OB }),
        };
        let (mut before, mut rest) = (Dataset::new_empty(), Dataset::new_empty());
        for element in dataset {
            match element.header().tag {
                tag if tag.group() <= 0x0002 || is_pixel_data(tag) => {}
                tag if tag < tags::PIXEL_DATA => drop(before.put(element)),
                _ => drop(rest.put(element)),
            }
        }
        let mut writer = Self { out, form, rest, table: (0, Vec::new()), written: 0, native };
        writer.out.write_all(&[0; 128]).map_err(io)?;
        writer.out.write_all(b"DICM").map_err(io)?;
        // The library's error may quote a value, so it is dropped.
        meta.write(&mut writer.out).map_err(|_| unwritable())?;
        let syntax = EXPLICIT_VR_LITTLE_ENDIAN.erased();
        before.write_dataset_with_ts(&mut writer.out, &syntax).map_err(|_| unwritable())?;
        writer.begin_pixels()?;
        Ok(writer)
    }

    fn begin_pixels(&mut self) -> Result<()> {
        match self.form {
            PixelForm::None => Ok(()),
            PixelForm::Native(bytes) => self.pixel_header(self.native, (bytes + bytes % 2) as u32),
            PixelForm::Encapsulated(frames) => {
                self.pixel_header((tags::PIXEL_DATA, VR::OB), u32::MAX)?;
                let bytes = u32::try_from(4 * frames as u64).map_err(|_| too_large())?;
                self.item(bytes)?;
                self.table.0 = self.out.stream_position().map_err(io)?;
                for _ in 0..frames {
                    self.out.write_all(&[0; 4]).map_err(io)?;
                }
                Ok(())
            }
        }
    }

    fn pixel_header(&mut self, (tag, vr): (Tag, VR), length: u32) -> Result<()> {
        self.tag(tag)?;
        self.out.write_all(vr.to_string().as_bytes()).map_err(io)?;
        self.out.write_all(&[0; 2]).map_err(io)?;
        self.out.write_all(&length.to_le_bytes()).map_err(io)
    }

    fn tag(&mut self, tag: Tag) -> Result<()> {
        self.out.write_all(&tag.group().to_le_bytes()).map_err(io)?;
        self.out.write_all(&tag.element().to_le_bytes()).map_err(io)
    }

    fn item(&mut self, length: u32) -> Result<()> {
        self.tag(Tag(0xFFFE, 0xE000))?;
        self.out.write_all(&length.to_le_bytes()).map_err(io)
    }

    /// Writes the next frame: native pixels in little endian, or an encoded frame.
    ///
    /// # Errors
    /// [`ErrorKind::PayloadTooLarge`] beyond 4 GiB of pixel data, [`ErrorKind::Io`].
    pub fn frame(&mut self, data: &[u8]) -> Result<()> {
        self.frame_with(data.len() as u64, |out| out.write_all(data))
    }

    /// Like [`frame`](Self::frame), for `length` bytes written by `write`.
    ///
    /// # Errors
    /// The errors of [`frame`](Self::frame).
    pub fn frame_with(
        &mut self,
        length: u64,
        write: impl FnOnce(&mut W) -> std::io::Result<()>,
    ) -> Result<()> {
        match self.form {
            PixelForm::None => return Err(Error::internal("a frame of an object without pixels")),
            PixelForm::Native(_) => {
                write(&mut self.out).map_err(io)?;
                self.written += length;
            }
            PixelForm::Encapsulated(_) => {
                let padding = length % 2;
                self.table.1.push(u32::try_from(self.written).map_err(|_| too_large())?);
                check_bytes(self.written + 8 + length + padding)?;
                self.item((length + padding) as u32)?;
                write(&mut self.out).map_err(io)?;
                self.out.write_all(&[0][..padding as usize]).map_err(io)?;
                self.written += 8 + length + padding;
            }
        }
        Ok(())
    }

    /// Writes what follows the frames and returns the underlying writer.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if frames are missing, [`ErrorKind::Io`].
    pub fn finish(mut self) -> Result<W> {
        match self.form {
            PixelForm::None => {}
            PixelForm::Native(bytes) if bytes == self.written => {
                self.out.write_all(&[0][..(bytes % 2) as usize]).map_err(io)?;
            }
            PixelForm::Encapsulated(frames) if frames == self.table.1.len() => {
                self.tag(Tag(0xFFFE, 0xE0DD))?;
                self.out.write_all(&[0; 4]).map_err(io)?;
                self.out.seek(SeekFrom::Start(self.table.0)).map_err(io)?;
                for offset in &self.table.1 {
                    self.out.write_all(&offset.to_le_bytes()).map_err(io)?;
                }
                self.out.seek(SeekFrom::End(0)).map_err(io)?;
            }
            _ => return Err(Error::internal("a file was finished without all of its frames")),
        }
        let syntax = EXPLICIT_VR_LITTLE_ENDIAN.erased();
        self.rest.write_dataset_with_ts(&mut self.out, &syntax).map_err(|_| unwritable())?;
        self.out.flush().map_err(io)?;
        Ok(self.out)
    }
}

fn check_bytes(bytes: u64) -> Result<()> {
    if bytes > MOST_BYTES { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::PayloadTooLarge,
        "its pixel data has more than 4 GiB, the most that an element of a DICOM file holds",
    )
}

fn unwritable() -> Error {
    Error::new(ErrorKind::InvalidImage, "its attributes cannot be written as a DICOM data set")
}

fn io(e: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot be written: {}", e.kind())).caused_by(e)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use dicom_core::{DataElement, PrimitiveValue};

    use super::*;
    use crate::dicom::p10::read_bytes;

    fn dataset(bits: u16, frames: &str) -> Dataset {
        let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
        let word = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
        Dataset::from_element_iter([
            text(tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.2"),
            text(tags::SOP_INSTANCE_UID, VR::UI, "1.5.1"),
            text(tags::NUMBER_OF_FRAMES, VR::IS, frames),
            word(tags::ROWS, 1),
            word(tags::COLUMNS, 3),
            word(tags::BITS_ALLOCATED, bits),
            word(Tag(0x7FE1, 0x0010), 7),
        ])
    }

    #[test]
    fn what_is_written_is_read() {
        const JPEG: &str = "1.2.840.10008.1.2.4.70";
        for (syntax, bits, form, frames) in [
            ("1.2.840.10008.1.2.1", 8, PixelForm::Native(6), [&b"abc"[..], b"def"]),
            ("1.2.840.10008.1.2.1", 16, PixelForm::Native(12), [b"abcdef", b"ghijkl"]),
            (JPEG, 8, PixelForm::Encapsulated(2), [b"abc", b"defg"]),
        ] {
            let out = Cursor::new(Vec::new());
            let mut writer = P10Writer::new(out, dataset(bits, "2"), syntax, form).unwrap();
            frames.iter().for_each(|frame| writer.frame(frame).unwrap());
            let bytes = writer.finish().unwrap().into_inner();
            let read = read_bytes(&bytes).unwrap();
            assert_eq!(read.transfer_syntax, syntax);
            for (read, frame) in read.frames.iter().zip(frames) {
                assert!(read.starts_with(frame), "{syntax}");
            }
            assert!(bytes.len() % 2 == 0 && bytes.windows(4).any(|w| w == [0xE1, 0x7F, 0x10, 0]));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let new = |form| {
            P10Writer::new(Cursor::new(Vec::new()), dataset(8, "2"), "1.2.840.10008.1.2.1", form)
        };
        let e = new(PixelForm::Native(1 << 32)).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::PayloadTooLarge);
        let mut writer = new(PixelForm::Native(6)).unwrap();
        writer.frame(b"abc").unwrap();
        assert!(writer.finish().is_err());
    }
}
