//! Marker segments as defined by JPEG (ITU-T T.81 B.1.1.4) and JPEG-LS (T.87 annex C).

/// Splits the bytes after a marker into the parameters of its segment and what follows. Returns
/// `None` if the segment is truncated or shorter than its own length field.
pub(super) fn split(after_marker: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, _) = after_marker.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(length));
    let (segment, next) = after_marker.split_at_checked(length)?;
    Some((segment.get(2..)?, next))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_segment_has_the_length_that_it_states() {
        assert_eq!(split(&[0, 4, 1, 2, 9]), Some((&[1, 2][..], &[9][..])));
        assert_eq!(split(&[0, 2]), Some((&[][..], &[][..])));
        for cut in [&[0, 4, 1][..], &[0, 1], &[0, 0], &[0], &[]] {
            assert_eq!(split(cut), None, "{cut:?}");
        }
    }
}
