//! Lookup tables of the cleanup pass, built at compile time from the tables of the standard.

use super::codewords::{FIRST, OTHERS};

/// Bits of an entry that hold the length of its codeword. The three bits above are zero, so that a
/// shift by an entry is a shift by its length, and the lengths of two entries can be added.
pub(super) const LENGTH: u32 = 0x3F;
/// Bits of an index that hold the context. In an entry, the same bits hold what its quad
/// contributes to the context of the next one.
pub(super) const CONTEXT: u32 = 0x380;
/// Bits of an index that hold the bits to decode.
pub(super) const CODE: u64 = 0x7F;
/// Bit of an entry: u_off, which says that a residual of the exponent follows.
pub(super) const U_OFF: u32 = 0x400;
/// Shift of an entry to the quad's patterns: ρ in bits 0 to 3, ε^k in bits 4 to 7, ε^1 in bits 8 to 11.
pub(super) const PATTERNS: u32 = 16;

/// Codewords of the first line-pair by context and the next seven bits; the constants above
/// describe an entry.
pub(super) static FIRST_LINES: [u32; 1024] = codewords(&FIRST, true);
/// The same for all other line-pairs.
pub(super) static OTHER_LINES: [u32; 1024] = codewords(&OTHERS, false);

const fn codewords<const N: usize>(list: &[u32; N], first: bool) -> [u32; 1024] {
    let mut table = [0; 1024];
    let mut i = 0;
    while i < N {
        let entry = list[i];
        let (context, rho, u_off) = (entry >> 28, entry >> 24 & 0xF, entry >> 20 & 0xF);
        let (e_k, e_1) = (entry >> 16 & 0xF, entry >> 12 & 0xF);
        let (length, code) = (entry >> 8 & 0xF, entry & 0xFF);
        let (tl, bl, tr, br) = (rho & 1, rho >> 1 & 1, rho >> 2 & 1, rho >> 3 & 1);
        // Equations 1 and 2 of section 7.3.5: what the quad at the left contributes to the context.
        let right = if first { tl | bl | tr << 1 | br << 2 } else { (tr | br) << 1 };
        let value = length | right << 7 | u_off << 10 | (rho | e_k << 4 | e_1 << 8) << PATTERNS;
        // Every index whose lowest bits are the codeword.
        let mut rest = 0;
        while rest < 1 << (7 - length) {
            table[(context << 7 | rest << length | code) as usize] = value;
            rest += 1;
        }
        i += 1;
    }
    table
}

/// Bits of an entry of [`RESIDUALS`] that hold the length of both residuals.
pub(super) const RESIDUAL_LENGTH: u32 = 0x0F;
/// Bit of an entry: a residual is too long for the table.
pub(super) const RESIDUAL_LONG: u16 = 0x8000;

/// Residuals u of a pair of quads, indexed by the next eight bits, the u_off of the first quad (bit
/// 10, as in its entry) and of the second (bit 11). The first residual is in bits 4 to 6, the
/// second in bits 12 to 14.
pub(super) static RESIDUALS: [u16; 4096] = residuals();

const fn residuals() -> [u16; 4096] {
    let mut table = [0; 4096];
    let mut i = 0;
    while i < 4096 {
        let mut bits = i as u32 & 0xFF;
        let mut length = 0;
        let mut prefixes = [0_u32; 2];
        let mut q = 0;
        while q < 2 {
            if i >> (10 + q) & 1 == 1 {
                let (prefix, taken) = prefix(bits);
                prefixes[q] = prefix;
                bits >>= taken;
                length += taken;
            }
            q += 1;
        }
        let mut q = 0;
        while q < 2 {
            if prefixes[q] == 3 {
                prefixes[q] += bits & 1;
                bits >>= 1;
                length += 1;
            }
            q += 1;
        }
        table[i] = if prefixes[0] == 5 || prefixes[1] == 5 {
            RESIDUAL_LONG
        } else {
            (length | prefixes[0] << 4 | prefixes[1] << 12) as u16
        };
        i += 1;
    }
    table
}

/// Decodes the prefix of a residual (table 3 of section 7.3.6). Returns it and its length.
pub(super) const fn prefix(bits: u32) -> (u32, u32) {
    match bits.trailing_zeros() {
        0 => (1, 1),
        1 => (2, 2),
        2 => (3, 3),
        _ => (5, 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_complete_and_no_codeword_begins_another() {
        for list in [&FIRST[..], &OTHERS[..]] {
            for context in 0..8 {
                let mut indices = [0_u32; 128];
                for entry in list.iter().filter(|&&e| e >> 28 == context) {
                    let (length, code) = (entry >> 8 & 0xF, (entry & 0xFF) as usize);
                    assert!((1..=7).contains(&length) && code >> length == 0, "{entry:08x}");
                    (0..128)
                        .filter(|i| i & ((1 << length) - 1) == code)
                        .for_each(|i| indices[i] += 1);
                }
                assert_eq!(indices, [1; 128], "context {context}");
            }
        }
    }

    #[test]
    fn patterns_are_consistent() {
        for entry in FIRST.iter().chain(&OTHERS) {
            let (rho, u_off) = (entry >> 24 & 0xF, entry >> 20 & 0xF);
            let (e_k, e_1) = (entry >> 16 & 0xF, entry >> 12 & 0xF);
            assert!(e_k & !rho == 0 && e_1 & !e_k == 0, "{entry:08x}");
            assert!(u_off == 1 || (u_off == 0 && e_k == 0), "{entry:08x}");
        }
    }
}
