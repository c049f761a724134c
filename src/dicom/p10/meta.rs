//! The file meta information (PS3.10 section 7.1): group 0002, of which the transfer syntax is all
//! that counts here. It is decided once how the data set is encoded, here and for every reader.

use std::io::Read;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::transfer_syntax::{Codec, TransferSyntax, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::malformed;
use super::source::Source;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of the whole group; files have a few hundred.
const MOST: u64 = 1 << 20;

/// Characters of a UID (PS3.5 section 9.1), and as much padding as it may have.
const UID: usize = 64;

/// Reads the group and leaves the reader at the data set.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] where the group is malformed or does not name one transfer syntax;
/// [`ErrorKind::UnsupportedPixelData`] where it is none whose data sets are read here.
pub(super) fn transfer_syntax(file: &mut Source<impl Read>) -> Result<&'static TransferSyntax> {
    if tag(file)? != tags::FILE_META_INFORMATION_GROUP_LENGTH || file.array()? != *b"UL\x04\0" {
        return Err(malformed(()));
    }
    let mut left = u64::from(u32::from_le_bytes(file.array()?));
    if left > file.left().min(MOST) {
        return Err(malformed(()));
    }
    let mut found = None;
    while left > 0 {
        let before = file.left();
        let tag = tag(file)?;
        let length = length(file)?;
        let header = before - file.left();
        left = left.checked_sub(header + length).ok_or_else(|| malformed(()))?;
        if tag.group() != 2 {
            return Err(malformed(()));
        }
        if tag != tags::TRANSFER_SYNTAX_UID {
            file.skip(length)?;
            continue;
        }
        if found.is_some() {
            return Err(invalid("TransferSyntaxUID is given twice"));
        }
        found = Some(uid(file, length)?);
    }
    known(&found.ok_or_else(|| invalid("TransferSyntaxUID is missing"))?)
}

fn tag(file: &mut Source<impl Read>) -> Result<Tag> {
    let [g0, g1, e0, e1] = file.array()?;
    Ok(Tag(u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1])))
}

/// The length of an element whose tag was just read, in explicit VR (PS3.5 section 7.1.2).
fn length(file: &mut Source<impl Read>) -> Result<u64> {
    let vr = VR::from_binary(file.array()?).ok_or_else(|| malformed(()))?;
    let [l0, l1] = file.array()?;
    Ok(match vr {
        VR::OB | VR::UN | VR::OW | VR::UT => u32::from_le_bytes(file.array()?).into(),
        // None of these is in this group; a sequence would not be one value.
        VR::OD | VR::OF | VR::OL | VR::OV | VR::SQ | VR::SV | VR::UC | VR::UR | VR::UV => {
            return Err(malformed(()));
        }
        _ => u16::from_le_bytes([l0, l1]).into(),
    })
}

/// The value of TransferSyntaxUID without its padding, which is one NUL by the standard and
/// several NULs or spaces in the field.
fn uid(file: &mut Source<impl Read>, length: u64) -> Result<String> {
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

/// The one decision on how a data set of transfer syntax `uid` is read.
fn known(uid: &str) -> Result<&'static TransferSyntax> {
    let unsupported = |what: &str| {
        Error::new(
            ErrorKind::UnsupportedPixelData,
            format!("transfer syntax {uid} {what}; convert the file to explicit little endian"),
        )
        .with("transferSyntaxUID", uid)
    };
    let syntax = TransferSyntaxRegistry.get(uid).ok_or_else(|| unsupported("is not known"))?;
    match (uid, syntax.codec()) {
        ("1.2.840.10008.1.2.2", _) => Err(unsupported("is big endian (retired), not supported")),
        (_, Codec::Dataset(_)) => Err(unsupported("is deflated, which is not supported")),
        _ => Ok(syntax),
    }
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidImage, what)
}
