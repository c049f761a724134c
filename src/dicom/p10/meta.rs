//! The file meta information (PS3.10 section 7.1): group 0002, of which only the transfer syntax
//! matters here. The encoding of the data set is decided here, once for all readers.

use std::io::Read;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::transfer_syntax::{Codec, TransferSyntax, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::malformed;
use super::source::Source;
use crate::error::{Error, ErrorKind, Result};

/// Maximum size of the whole group in bytes; files have a few hundred.
const MOST: u64 = 1 << 20;

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";

/// Maximum length of a UID (PS3.5 section 9.1), and of a UID field with its padding.
const UID: usize = 64;

/// The content of the group, and how the data set after it is encoded.
pub(super) struct Meta {
    /// The encoding of the data set.
    pub encoding: Encoding,
    /// Media Storage SOP Class UID (0002,0002), if it is a valid UID.
    pub sop_class: Option<String>,
}

/// How a data set is encoded.
pub(super) struct Encoding {
    /// The transfer syntax of the frames as returned. Native pixels become little endian and
    /// uncompressed, whatever the file's encoding.
    pub frames: &'static str,
    /// The encoding of the elements.
    pub elements: &'static TransferSyntax,
    /// Whether the whole data set is compressed (PS3.5 annex A.5).
    pub deflated: bool,
    /// Whether the most significant byte of a word comes first (PS3.5 annex A.3).
    pub big_endian: bool,
}

/// Reads the group and leaves the reader at the data set. The group ends where the next one begins:
/// its length, the first element, may be missing or wrong.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] if the group is malformed or does not name exactly one transfer
/// syntax; [`ErrorKind::UnsupportedPixelData`] if data sets in that syntax are not supported.
pub(super) fn read(file: &mut Source<'_, '_, impl Read>) -> Result<Meta> {
    let begin = file.left();
    let mut syntax = None;
    let mut sop_class = None;
    while file.left() >= 4 {
        let bytes = file.array()?;
        let tag = tag(bytes);
        if tag.group() != 2 {
            file.give_back(bytes);
            break;
        }
        let length = length(file)?;
        if length > file.left() || begin - file.left() > MOST {
            return Err(malformed(()));
        }
        match tag {
            tags::TRANSFER_SYNTAX_UID if syntax.is_some() => {
                return Err(invalid("TransferSyntaxUID is given twice"));
            }
            tags::TRANSFER_SYNTAX_UID => syntax = Some(uid(file, length)?),
            tags::MEDIA_STORAGE_SOP_CLASS_UID if length <= UID as u64 => {
                sop_class = uid(file, length).ok();
            }
            _ => file.skip(length)?,
        }
    }
    let encoding = known(&syntax.ok_or_else(|| invalid("TransferSyntaxUID is missing"))?)?;
    Ok(Meta { encoding, sop_class })
}

fn tag([g0, g1, e0, e1]: [u8; 4]) -> Tag {
    Tag(u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]))
}

/// Reads the length of an element whose tag was just read, in explicit VR (PS3.5 section 7.1.2).
fn length(file: &mut Source<'_, '_, impl Read>) -> Result<u64> {
    let vr = VR::from_binary(file.array()?).ok_or_else(|| malformed(()))?;
    let [l0, l1] = file.array()?;
    Ok(match vr {
        VR::OB | VR::UN | VR::OW | VR::UT => u32::from_le_bytes(file.array()?).into(),
        // None of these occurs in this group; a sequence would not be a single value.
        VR::OD | VR::OF | VR::OL | VR::OV | VR::SQ | VR::SV | VR::UC | VR::UR | VR::UV => {
            return Err(malformed(()));
        }
        _ => u16::from_le_bytes([l0, l1]).into(),
    })
}

/// Reads a UID value without its padding, which is one NUL by the standard and several NULs or
/// spaces in the field.
fn uid(file: &mut Source<'_, '_, impl Read>, length: u64) -> Result<String> {
    let wrong = || invalid("TransferSyntaxUID is not a UID of at most 64 digits and periods");
    if length > UID as u64 {
        return Err(wrong());
    }
    let mut value = Vec::new();
    file.append(length, &mut value)?;
    let padding = value.iter().rev().take_while(|b| b.is_ascii_whitespace() || **b == 0).count();
    value.truncate(value.len() - padding);
    let is_uid = !value.is_empty() && value.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    String::from_utf8(value).ok().filter(|_| is_uid).ok_or_else(wrong)
}

/// Decides how a data set of transfer syntax `uid` is read.
pub(super) fn known(uid: &str) -> Result<Encoding> {
    let unsupported = || {
        Error::new(
            ErrorKind::UnsupportedPixelData,
            format!(
                "transfer syntax {uid} is not known; convert the file to explicit little endian"
            ),
        )
        .with("transferSyntaxUID", uid)
    };
    let syntax = |uid| TransferSyntaxRegistry.get(uid).ok_or_else(unsupported);
    let (elements, deflated, big_endian) = match uid {
        DEFLATED => (syntax(EXPLICIT)?, true, false),
        BIG_ENDIAN => (syntax(BIG_ENDIAN)?, false, true),
        uid => (syntax(uid)?, false, false),
    };
    if !deflated && matches!(elements.codec(), Codec::Dataset(_)) {
        return Err(unsupported());
    }
    let frames = if deflated || big_endian { EXPLICIT } else { elements.uid() };
    Ok(Encoding { frames, elements, deflated, big_endian })
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidImage, what)
}
