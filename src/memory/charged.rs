//! Bytes that own their memory charge.

use bytes::Bytes;

/// Returns the same bytes, which own `charge` as long as any slice of them exists.
pub fn charged(bytes: Bytes, charge: impl Send + Sync + 'static) -> Bytes {
    Bytes::from_owner(Charged { bytes, _charge: charge })
}

struct Charged<T> {
    bytes: Bytes,
    _charge: T,
}

impl<T> AsRef<[u8]> for Charged<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
