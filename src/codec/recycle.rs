//! Reuses the memory of decoded frames for later ones.

use super::Samples;
use crate::memory::Shelf;

/// Bytes of unused buffers kept for each kind.
const KEPT_BYTES: usize = 8 << 20;

static UNSIGNED: Shelf<u16> = Shelf::new(KEPT_BYTES);
static SIGNED: Shelf<i16> = Shelf::new(KEPT_BYTES);

/// Returns an empty list with capacity for `count` pixels, recycled if possible. If memory is
/// short, the capacity is smaller: call `try_reserve` before filling it, which costs nothing if the
/// capacity suffices.
pub(crate) fn buffer_u16(count: usize) -> Vec<u16> {
    UNSIGNED.take(count)
}

/// Like [`buffer_u16`], for two's complement pixels.
pub(crate) fn buffer_i16(count: usize) -> Vec<i16> {
    SIGNED.take(count)
}

/// Keeps a decoded frame's memory for later frames. Memory of pixels of more than 16 bits is freed.
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
