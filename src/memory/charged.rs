//! Bytes that hold what they are charged to.

use bytes::Bytes;

/// The same bytes, which hold `charge` as long as any slice of them is there.
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
