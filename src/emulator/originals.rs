//! Original files, kept so that instances can be returned byte for byte: complete files if their
//! frames are stored in the original encoding; otherwise without the value of Pixel Data, which is
//! restored from the frames.
//!
//! A file is named by a digest of the instance's entry in the metadata document. Once an attribute
//! is changed, the original is no longer found and the instance is created from the document.

use bytes::Bytes;

use super::store::Store;
use crate::dicom::ahi_metadata::FlatInstance;
use crate::error::Result;

/// An original file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Original {
    /// The complete file.
    Whole(Bytes),
    /// The part before the value of Pixel Data, which ends the file.
    Head(Bytes),
}

/// Returns the offset of `bytes` bytes of native pixels at the end of an explicit VR little endian
/// file.
///
/// The element header must precede exactly as many bytes as it declares, with nothing after them.
/// Returns `None` for any other file.
pub(super) fn native_pixels_at_end(file: &[u8], bytes: u64) -> Option<usize> {
    // Values have an even length (PS3.5 section 7.1.1).
    let length = bytes.checked_add(bytes % 2)?;
    let start = file.len().checked_sub(usize::try_from(length).ok()?)?;
    let header = file.get(start.checked_sub(12)?..start)?;
    let stated = u32::try_from(length).ok()?.to_le_bytes();
    let is_pixel_data = matches!(header, [0xE0, 0x7F, 0x10, 0x00, b'O', b'B' | b'W', 0, 0, ..]);
    (is_pixel_data && header.get(8..12) == Some(&stated[..])).then_some(start)
}

/// Returns the transfer syntax in the file meta information (PS3.10 section 7.1).
pub(super) fn stated_syntax(file: &[u8]) -> Option<&str> {
    const ELEMENT: &[u8] = b"\x02\x00\x10\x00UI";
    let group = file.get(132..file.len().min(4096))?;
    let at = memchr::memmem::find(group, ELEMENT)? + ELEMENT.len();
    let length = usize::from(u16::from_le_bytes(group.get(at..at + 2)?.try_into().ok()?));
    let value = group.get(at + 2..at + 2 + length)?;
    std::str::from_utf8(value).ok().map(|text| text.trim_end_matches(['\0', ' ']))
}

/// Saves the original of an instance.
pub(super) fn save(
    store: &Store,
    datastore_id: &str,
    image_set_id: &str,
    instance: &FlatInstance,
    original: &Original,
) -> Result<()> {
    let (name, data) = match original {
        Original::Whole(data) => (whole(instance), data),
        Original::Head(data) => (head(instance), data),
    };
    store.save_original(datastore_id, image_set_id, &name, data)
}

/// Returns the original of an instance, if it is kept and the instance is unchanged.
pub(super) fn find(
    store: &Store,
    datastore_id: &str,
    image_set_id: &str,
    instance: &FlatInstance,
) -> Result<Option<Original>> {
    if let Some(data) = store.original(datastore_id, image_set_id, &whole(instance))? {
        return Ok(Some(Original::Whole(data.into())));
    }
    let data = store.original(datastore_id, image_set_id, &head(instance))?;
    Ok(data.map(|data| Original::Head(data.into())))
}

/// Shares the original of an instance of the image set `from` with `to`.
pub(super) fn share(
    store: &Store,
    datastore_id: &str,
    from: &str,
    to: &str,
    instance: &FlatInstance,
) -> Result<()> {
    for name in [whole(instance), head(instance)] {
        store.share_original(datastore_id, from, to, &name)?;
    }
    Ok(())
}

fn whole(instance: &FlatInstance) -> String {
    format!("{}.dcm", instance.digest())
}

fn head(instance: &FlatInstance) -> String {
    format!("{}.head", instance.digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_found_at_the_end_alone() {
        let file =
            |tail: &[u8]| [b"before", &b"\xE0\x7F\x10\0OW\0\0\x04\0\0\0abcd"[..], tail].concat();
        assert_eq!(native_pixels_at_end(&file(b""), 4), Some(18));
        // Three bytes are padded to four.
        assert_eq!(native_pixels_at_end(&file(b""), 3), Some(18));
        assert_eq!(native_pixels_at_end(&file(b"x"), 4), None);
        assert_eq!(native_pixels_at_end(&file(b""), 2), None);
        assert_eq!(native_pixels_at_end(b"abcd", 4), None);
        assert_eq!(native_pixels_at_end(b"abcd", u64::MAX), None);
    }

    #[test]
    fn the_stated_syntax_is_read() {
        let file = [&[0; 128][..], b"DICM\x02\0\x10\0UI\x06\x001.2.3\0rest"].concat();
        assert_eq!(stated_syntax(&file), Some("1.2.3"));
        assert_eq!(stated_syntax(&file[..144]), None);
        assert_eq!(stated_syntax(b"short"), None);
    }
}
