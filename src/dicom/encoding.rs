//! Encoding of the frames of objects that this program creates.

use serde::Deserialize;

/// An encoding without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FrameEncoding {
    /// Pixels as they are: Explicit VR Little Endian.
    Native,
    /// RLE Lossless (PS3.5 annex G): a label map of a head shrinks to a thirtieth, and every toolkit reads it.
    #[default]
    Rle,
    /// High-Throughput JPEG 2000 (Lossless Only).
    Htj2k,
}

impl FrameEncoding {
    /// UID of its transfer syntax (PS3.6 annex A).
    pub fn transfer_syntax(self) -> &'static str {
        match self {
            Self::Native => "1.2.840.10008.1.2.1",
            Self::Rle => "1.2.840.10008.1.2.5",
            Self::Htj2k => "1.2.840.10008.1.2.4.201",
        }
    }
}
