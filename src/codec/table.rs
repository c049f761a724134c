//! The table of transfer syntaxes and their decoders.

use std::fmt;

/// A decoder of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Decoder {
    /// Uncompressed little-endian pixels.
    Native,
    /// RLE Lossless (PS3.5 annex G).
    Rle,
    /// HTJ2K in the form that DICOM encoders write (ISO/IEC 15444-15); fast.
    Ht,
    /// `openjp2`: all of JPEG 2000, with either block coder.
    OpenJp2,
    /// The JPEG adapter of `dicom-transfer-syntax-registry`.
    Jpeg,
    /// JPEG-LS (ITU-T T.87).
    JpegLs,
    /// `jxl-oxide`: JPEG XL.
    JpegXl,
}

impl fmt::Display for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Rle => "rle",
            Self::Ht => "ht",
            Self::OpenJp2 => "openjp2",
            Self::Jpeg => "jpeg-decoder",
            Self::JpegLs => "jpeg-ls",
            Self::JpegXl => "jxl-oxide",
        })
    }
}

/// One transfer syntax that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferSyntaxEntry {
    /// Its UID (PS3.6 annex A).
    pub uid: &'static str,
    /// Its name in PS3.6.
    pub name: &'static str,
    /// Its decoders in order of preference: each is tried on what those before it cannot read.
    pub decoders: &'static [Decoder],
}

const HTJ2K: &[Decoder] = &[Decoder::Ht, Decoder::OpenJp2];

/// All transfer syntaxes that [`decode`](super::decode) supports.
const TABLE: &[TransferSyntaxEntry] = &[
    entry("1.2.840.10008.1.2", "Implicit VR Little Endian", &[Decoder::Native]),
    entry("1.2.840.10008.1.2.1", "Explicit VR Little Endian", &[Decoder::Native]),
    entry("1.2.840.10008.1.2.4.50", "JPEG Baseline (Process 1)", &[Decoder::Jpeg]),
    entry("1.2.840.10008.1.2.4.51", "JPEG Extended (Process 2 & 4)", &[Decoder::Jpeg]),
    entry("1.2.840.10008.1.2.4.57", "JPEG Lossless (Process 14)", &[Decoder::Jpeg]),
    entry("1.2.840.10008.1.2.4.70", "JPEG Lossless (Process 14, SV1)", &[Decoder::Jpeg]),
    entry("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless", &[Decoder::JpegLs]),
    entry("1.2.840.10008.1.2.4.81", "JPEG-LS Near-Lossless", &[Decoder::JpegLs]),
    entry("1.2.840.10008.1.2.4.90", "JPEG 2000 (Lossless Only)", &[Decoder::OpenJp2]),
    entry("1.2.840.10008.1.2.4.91", "JPEG 2000", &[Decoder::OpenJp2]),
    entry("1.2.840.10008.1.2.4.110", "JPEG XL Lossless", &[Decoder::JpegXl]),
    entry("1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression", &[Decoder::JpegXl]),
    entry("1.2.840.10008.1.2.4.112", "JPEG XL", &[Decoder::JpegXl]),
    entry("1.2.840.10008.1.2.4.201", "HTJ2K (Lossless Only)", HTJ2K),
    entry("1.2.840.10008.1.2.4.202", "HTJ2K with RPCL Options (Lossless Only)", HTJ2K),
    entry("1.2.840.10008.1.2.4.203", "HTJ2K", HTJ2K),
    entry("1.2.840.10008.1.2.5", "RLE Lossless", &[Decoder::Rle]),
];

const fn entry(
    uid: &'static str,
    name: &'static str,
    decoders: &'static [Decoder],
) -> TransferSyntaxEntry {
    TransferSyntaxEntry { uid, name, decoders }
}

/// Returns all transfer syntaxes that can be decoded, with their decoders.
pub fn transfer_syntaxes() -> &'static [TransferSyntaxEntry] {
    TABLE
}

/// Whether `uid` is a video transfer syntax: MPEG-2, MPEG-4 AVC or HEVC (PS3.5 sections 8.2.5 to
/// 8.2.8).
pub(super) fn is_video(uid: &str) -> bool {
    let uid =
        uid.strip_suffix(".1").filter(|u| u.starts_with("1.2.840.10008.1.2.4.1")).unwrap_or(uid);
    uid.strip_prefix("1.2.840.10008.1.2.4.")
        .and_then(|n| n.parse::<u32>().ok())
        .is_some_and(|n| (100..=108).contains(&n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_valid_and_unique_and_have_a_decoder() {
        for (i, entry) in TABLE.iter().enumerate() {
            assert!(crate::dicom::uid::is_valid(entry.uid), "{}", entry.uid);
            assert!(TABLE[..i].iter().all(|e| e.uid != entry.uid), "{}", entry.uid);
            assert!(!entry.decoders.is_empty(), "{}", entry.uid);
        }
    }

    #[test]
    fn video_is_recognised() {
        for n in ["100", "100.1", "102", "108"] {
            assert!(is_video(&format!("1.2.840.10008.1.2.4.{n}")), "{n}");
        }
        assert!(!is_video("1.2.840.10008.1.2.4.90") && !is_video("1.2.840.10008.1.2.4.110"));
    }
}
