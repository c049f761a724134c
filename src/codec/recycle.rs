//! Memory of decoded frames, used again for the next ones.

use super::Samples;
use crate::memory::Shelf;

/// Bytes of unused buffers that are kept of each kind.
const KEPT_BYTES: usize = 8 << 20;

static UNSIGNED: Shelf<u16> = Shelf::new(KEPT_BYTES);
static SIGNED: Shelf<i16> = Shelf::new(KEPT_BYTES);

/// An empty list with room for `count` pixels, one that was used before if there is one. Where the
/// system has no memory it has less room: reserve before filling it (`try_reserve`), which costs
/// nothing where the room is there.
pub(crate) fn buffer_u16(count: usize) -> Vec<u16> {
    UNSIGNED.take(count)
}

/// As [`buffer_u16`], for two's complement pixels.
pub(crate) fn buffer_i16(count: usize) -> Vec<i16> {
    SIGNED.take(count)
}

/// Takes a decoded frame's memory back for the next one. That of pixels of more than 16 bits is just
/// freed.
pub fn recycle(samples: Samples) {
    match samples {
        Samples::I16(buffer) => SIGNED.put(buffer),
        Samples::U16(buffer) => UNSIGNED.put(buffer),
        Samples::I32(_) | Samples::U32(_) | Samples::F32(_) | Samples::F64(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_give_their_memory_back() {
        let count = 12_347;
        recycle(Samples::I16(vec![1; count]));
        let signed = buffer_i16(count);
        assert!(signed.is_empty() && signed.capacity() >= count);
        recycle(Samples::U16(vec![1; count]));
        let unsigned = buffer_u16(count);
        assert!(unsigned.is_empty() && unsigned.capacity() >= count);
        recycle(Samples::F32(vec![1.0; count]));
        assert!(buffer_u16(count).capacity() >= count);
    }
}
