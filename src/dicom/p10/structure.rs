//! A walk over the elements of a file before it is parsed (PS3.5 section 7).
//!
//! The parser allocates what an element's length says before it reads the value, and calls itself
//! for each nested sequence: four bytes of a damaged file would cost gigabytes, and a hostile one
//! the stack. This walk follows the same structure with no more memory than a bounded stack, and
//! refuses lengths beyond what encloses them and nesting beyond reason.

use std::io::{Read, Seek, SeekFrom};

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

use super::{PREAMBLE, PREFIX, malformed};
use crate::error::Result;

const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
const IMPLICIT: &[u8] = b"1.2.840.10008.1.2";

/// Sequences within items within sequences deeper than this occur in no standard object.
const MAX_DEPTH: usize = 64;

/// What the elements at a position are enclosed by.
#[derive(Clone, Copy)]
struct Level {
    /// Where it ends, whether by its own length or by what encloses it.
    end: u64,
    /// It ends by a delimiter.
    delimited: bool,
    implicit: bool,
    /// Its items are fragments of pixel data and hold no elements.
    fragments: bool,
}

struct Walk<R> {
    file: R,
    position: u64,
    levels: Vec<Level>,
}

/// Walks the file meta information and the data set, up to Pixel Data unless `with_pixels`.
/// Leaves the reader anywhere.
pub(super) fn check(mut file: impl Read + Seek, with_pixels: bool) -> Result<()> {
    let length = file.seek(SeekFrom::End(0)).map_err(malformed)?;
    let position = (PREAMBLE + PREFIX.len()) as u64;
    file.seek(SeekFrom::Start(position)).map_err(malformed)?;
    let whole = Level { end: length, delimited: false, implicit: false, fragments: false };
    let mut walk = Walk { file, position, levels: vec![whole] };
    let implicit = walk.meta()?;
    walk.levels = vec![Level { implicit, ..whole }];
    while walk.position < length {
        if !walk.element(with_pixels)? {
            break;
        }
    }
    Ok(())
}

impl<R: Read + Seek> Walk<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(malformed)?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn u16(&mut self) -> Result<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn tag(&mut self) -> Result<Tag> {
        Ok(Tag(self.u16()?, self.u16()?))
    }

    fn skip(&mut self, length: u32) -> Result<()> {
        self.file.seek_relative(i64::from(length)).map_err(malformed)?;
        self.position += u64::from(length);
        Ok(())
    }

    fn level(&self) -> Result<Level> {
        self.levels.last().copied().ok_or_else(|| malformed(()))
    }

    /// Walks group 0002; whether the data set after it is in implicit VR. Group Length must be
    /// right, as the parser goes by it.
    fn meta(&mut self) -> Result<bool> {
        if self.tag()? != tags::FILE_META_INFORMATION_GROUP_LENGTH || self.bytes()? != *b"UL\x04\0"
        {
            return Err(malformed(()));
        }
        let length = u64::from(self.u32()?);
        let end = self.position + length;
        if end > self.level()?.end {
            return Err(malformed(()));
        }
        let mut implicit = false;
        while self.position < end {
            let tag = self.tag()?;
            let (_, length) = self.vr_and_length(tag, false)?;
            if tag.group() != 2 || u64::from(length) > end.saturating_sub(self.position) {
                return Err(malformed(()));
            }
            if tag == tags::TRANSFER_SYNTAX_UID && length <= 64 {
                let mut uid = vec![0; length as usize];
                self.file.read_exact(&mut uid).map_err(malformed)?;
                self.position += u64::from(length);
                implicit =
                    uid.trim_ascii_end() == IMPLICIT || uid.strip_suffix(b"\0") == Some(IMPLICIT);
            } else {
                self.skip(length)?;
            }
        }
        Ok(implicit)
    }

    /// Value representation and length of an element whose tag was just read (PS3.5 section 7.1).
    fn vr_and_length(&mut self, tag: Tag, implicit: bool) -> Result<(VR, u32)> {
        if implicit {
            let entry = StandardDataDictionary.by_tag(tag);
            return Ok((entry.map_or(VR::UN, |e| e.vr().relaxed()), self.u32()?));
        }
        let vr = VR::from_binary(self.bytes()?).unwrap_or(VR::UN);
        let long = matches!(
            vr,
            VR::OB
                | VR::OD
                | VR::OF
                | VR::OL
                | VR::OV
                | VR::OW
                | VR::SQ
                | VR::SV
                | VR::UC
                | VR::UN
                | VR::UR
                | VR::UT
                | VR::UV
        );
        if long {
            self.skip(2)?;
            Ok((vr, self.u32()?))
        } else {
            Ok((vr, u32::from(self.u16()?)))
        }
    }

    /// Walks one element, item or delimiter; false where the walk is over.
    fn element(&mut self, with_pixels: bool) -> Result<bool> {
        while self.levels.len() > 1 && self.position >= self.level()?.end {
            self.levels.pop();
        }
        let level = self.level()?;
        let tag = self.tag()?;
        if matches!(tag, ITEM | ITEM_END | SEQUENCE_END) {
            let length = self.u32()?;
            self.delimiter(tag, length, level)?;
            return Ok(true);
        }
        if level.fragments {
            return Err(malformed(()));
        }
        if self.levels.len() == 1 && tag >= tags::PIXEL_DATA && !with_pixels {
            return Ok(false);
        }
        let (vr, length) = self.vr_and_length(tag, level.implicit)?;
        if tag == tags::PIXEL_DATA && length == UNDEFINED {
            self.enter(length, level, level.implicit, true)?;
        } else if vr == VR::SQ || (vr == VR::UN && length == UNDEFINED) {
            // A sequence of unknown VR is in implicit VR (PS3.5 section 6.2.2, note 4).
            self.enter(length, level, level.implicit || vr == VR::UN, false)?;
        } else {
            self.value(length, level)?;
        }
        Ok(true)
    }

    fn delimiter(&mut self, tag: Tag, length: u32, level: Level) -> Result<()> {
        match tag {
            ITEM if level.fragments => self.value(length, level),
            ITEM => self.enter(length, level, level.implicit, false),
            _ if level.delimited => {
                self.levels.pop();
                Ok(())
            }
            // Superfluous after a defined length; the parser tolerates what follows or refuses it.
            _ => Ok(()),
        }
    }

    fn value(&mut self, length: u32, level: Level) -> Result<()> {
        if u64::from(length) > level.end.saturating_sub(self.position) {
            return Err(malformed(()));
        }
        self.skip(length)
    }

    fn enter(&mut self, length: u32, level: Level, implicit: bool, fragments: bool) -> Result<()> {
        let delimited = length == UNDEFINED;
        let end = if delimited { level.end } else { self.position + u64::from(length) };
        if end > level.end || self.levels.len() > MAX_DEPTH {
            return Err(malformed(()));
        }
        self.levels.push(Level { end, delimited, implicit, fragments });
        Ok(())
    }
}
