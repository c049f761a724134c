//! Recognises the start of DICOM files: with preamble, prefix and file meta information as in
//! PS3.10 section 7, or, as older and broken programs write them, without some or all of these.
//!
//! A file without the prefix counts as DICOM if it begins with a file meta element, or with a data
//! set in tag order up to SOPClassUID or SOPInstanceUID: no other file does so by accident.

use dicom_core::VR;

const PREAMBLE: usize = 128;
const PREFIX: &[u8; 4] = b"DICM";

/// Number of bytes needed to recognise the start of a file, if it has that many.
pub const HEAD: usize = 512;

/// How a file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Group 0002, after this many bytes.
    Meta(usize),
    /// The data set itself, after this many bytes, in the transfer syntax with that UID.
    DataSet(usize, &'static str),
}

/// Returns how a file with these first bytes begins; `None` if it is not a DICOM file.
pub(super) fn start(head: &[u8]) -> Option<Start> {
    let at = [PREAMBLE, 0]
        .into_iter()
        .find(|at| head.get(*at..).is_some_and(|rest| rest.starts_with(PREFIX)));
    if let Some(at) = at {
        let offset = at + PREFIX.len();
        let rest = &head[offset..];
        // The prefix makes it a DICOM file: anything else after the prefix is malformed, not
        // another format.
        return Some(match encoding(rest) {
            Some(uid) if !begins_with_meta(rest) => Start::DataSet(offset, uid),
            _ => Start::Meta(offset),
        });
    }
    if begins_with_meta(head) {
        return Some(Start::Meta(0));
    }
    encoding(head).map(|uid| Start::DataSet(0, uid))
}

/// Whether the bytes begin with an element of group 0002, which is in explicit VR little endian.
fn begins_with_meta(bytes: &[u8]) -> bool {
    let Some(&[g0, g1, _, e1, v0, v1, ..]) = bytes.first_chunk::<8>() else { return false };
    (g0, g1) == (2, 0) && e1 <= 1 && VR::from_binary([v0, v1]).is_some()
}

/// Returns the transfer syntax of a data set that begins here.
fn encoding(bytes: &[u8]) -> Option<&'static str> {
    [
        ("1.2.840.10008.1.2.1", Coding { big: false, explicit: true }),
        ("1.2.840.10008.1.2", Coding { big: false, explicit: false }),
        ("1.2.840.10008.1.2.2", Coding { big: true, explicit: true }),
    ]
    .into_iter()
    .find(|(_, coding)| coding.reaches_uid(bytes))
    .map(|(uid, _)| uid)
}

struct Coding {
    big: bool,
    explicit: bool,
}

impl Coding {
    /// Whether elements of group 0008 in ascending order lead to a SOPClassUID or SOPInstanceUID
    /// with a UID as its value, as far as the bytes go.
    fn reaches_uid(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        let mut before = None;
        loop {
            let Some((element, length, value)) = self.element(rest) else { return false };
            if before.is_some_and(|before| before >= element) {
                return false;
            }
            before = Some(element);
            match element {
                0x0016 | 0x0018 => {
                    let value = &value[..length.min(value.len())];
                    let digits = |b: &u8| b.is_ascii_digit() || matches!(b, b'.' | b'\0' | b' ');
                    return length <= 64 && !value.is_empty() && value.iter().all(digits);
                }
                0x0000..0x0018 => {}
                _ => return false,
            }
            let Some(next) = value.get(length..) else { return false };
            rest = next;
        }
    }

    /// Returns the number and length of an element of group 0008, and the bytes from its value on.
    fn element<'a>(&self, bytes: &'a [u8]) -> Option<(u16, usize, &'a [u8])> {
        let word = |at: usize| -> Option<u16> {
            let two = [*bytes.get(at)?, *bytes.get(at + 1)?];
            Some(if self.big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
        };
        let long = |at: usize| -> Option<u32> {
            let four = *bytes.get(at..)?.first_chunk::<4>()?;
            Some(if self.big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
        };
        if word(0)? != 0x0008 {
            return None;
        }
        let element = word(2)?;
        let (length, at) = if self.explicit {
            match VR::from_binary([*bytes.get(4)?, *bytes.get(5)?])? {
                VR::OB | VR::OW | VR::SQ | VR::UN | VR::UT | VR::UC | VR::UR => (long(8)?, 12),
                _ => (word(6)?.into(), 8),
            }
        } else {
            (long(4)?, 8)
        };
        Some((element, usize::try_from(length).ok()?, &bytes[at..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPLICIT: &[u8] = b"\x08\0\x05\0CS\x0a\0ISO_IR 100\x08\0\x16\0UI\x06\x001.2.3\0";
    const IMPLICIT: &[u8] = b"\x08\0\0\0\x04\0\0\0\x12\0\0\0\x08\0\x18\0\x06\0\0\x001.2.3\0";
    const BIG: &[u8] = b"\0\x08\0\x16UI\0\x061.2.3\0";

    #[test]
    fn files_begin_in_many_ways() {
        let meta = b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0";
        let with = |before: &[u8], rest: &[u8]| start(&[before, rest].concat());
        let preamble = [&[0; 128][..], PREFIX].concat();
        assert_eq!(with(&preamble, meta), Some(Start::Meta(132)));
        assert_eq!(with(PREFIX, meta), Some(Start::Meta(4)));
        assert_eq!(with(b"", meta), Some(Start::Meta(0)));
        for (bytes, uid) in [
            (EXPLICIT, "1.2.840.10008.1.2.1"),
            (IMPLICIT, "1.2.840.10008.1.2"),
            (BIG, "1.2.840.10008.1.2.2"),
        ] {
            assert_eq!(with(&preamble, bytes), Some(Start::DataSet(132, uid)));
            assert_eq!(with(b"", bytes), Some(Start::DataSet(0, uid)));
        }
        assert_eq!(with(&preamble, b"?"), Some(Start::Meta(132)), "malformed, but DICOM");
    }

    #[test]
    fn other_files_are_none() {
        for bytes in [
            &b""[..],
            b"\x08\0\x05\0",
            b"\x08\0\x05\0CS\x0a\0ISO_IR",
            b"PK\x03\x04",
            b"\x02\0\0\0",
            b"\x02\0\0\0\x10\0\0\0",
            b"\0\0\0\x01Bud1",
            b"\x08\0\x16\0UI\x06\0text!!",
            &[0; 600],
            &[8; 600],
            &[2; 600],
        ] {
            assert_eq!(start(bytes), None, "{bytes:?}");
        }
        // A UID truncated by the end of the examined bytes still counts.
        assert!(start(&EXPLICIT[..EXPLICIT.len() - 3]).is_some());
        // Elements out of order are not a data set.
        assert_eq!(start(&[&EXPLICIT[18..], EXPLICIT].concat()[4..]), None);
    }
}
