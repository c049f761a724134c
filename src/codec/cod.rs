//! Coding style of a codestream (ISO/IEC 15444-1 A.6.1), and limits on what decoding it costs.

use super::corrupt;
use super::packets::Tile;
use super::siz::Siz;
use crate::error::Result;

/// With more packets (layers × precincts) than this, they cost a decoder more than the image does.
const MAX_PACKETS: u64 = 1 << 20;
/// Limits on precincts and code-blocks of all tiles: a decoder keeps some 200 bytes for each, even
/// if it is empty. Encoders write blocks of 32 × 32 pixels or larger.
const MAX_PRECINCTS: u64 = 1 << 16;
const MAX_BLOCKS: u64 = 1 << 18;
/// Positions that a progression by position visits, whether or not they have a packet.
const MAX_POSITIONS: u64 = 1 << 24;
/// Changes of progression (POC, A.6.6) that one header may state.
const MAX_PROGRESSIONS: u64 = 32;
/// Packets that are listed and sorted to read a plain codestream.
const MAX_PLAIN_PACKETS: u64 = 1 << 16;

/// The COD marker segment (A.6.1).
pub(super) struct Cod {
    pub style: u8,
    /// LRCP, RLCP, RPCL, PCRL, CPRL (table A.16).
    pub progression: u8,
    pub layers: u16,
    pub levels: u8,
    /// Code-block width and height exponents.
    pub block: (u8, u8),
    pub block_style: u8,
    pub reversible: bool,
    /// Precinct size exponents of each resolution, PPy << 4 | PPx; empty means 15 and 15.
    pub precincts: Vec<u8>,
}

impl Cod {
    pub fn parse(body: &[u8]) -> Result<Self> {
        let short = || corrupt("COD marker segment is too short");
        let fixed = body.get(..10).ok_or_else(short)?;
        let levels = fixed[5];
        if levels > 32 {
            return Err(corrupt(format!("codestream declares {levels} decomposition levels")));
        }
        let block = (fixed[6], fixed[7]);
        if block.0 > 8 || block.1 > 8 || block.0 + block.1 > 8 {
            return Err(corrupt("codestream declares code-blocks larger than there are"));
        }
        let precincts = if fixed[0] & 1 != 0 {
            body.get(10..11 + usize::from(levels)).ok_or_else(short)?.to_vec()
        } else {
            Vec::new()
        };
        Ok(Self {
            style: fixed[0],
            progression: fixed[1],
            layers: u16::from_be_bytes([fixed[2], fixed[3]]),
            levels,
            block: (block.0 + 2, block.1 + 2),
            block_style: fixed[8],
            reversible: fixed[9] == 1,
            precincts,
        })
    }

    /// Maximum width and height of resolution `r` in a tile.
    pub fn reduced(&self, r: u8, siz: &Siz) -> (u64, u64) {
        let Some((width, height)) = siz.extent() else { return (0, 0) };
        let shift = u32::from(self.levels - r).min(63);
        let side = |size: u32, tile: u32| u64::from(size.min(tile)).div_ceil(1_u64 << shift);
        (side(width, siz.tile.0), side(height, siz.tile.1))
    }

    /// Exponents of the precincts of resolution `r`.
    pub fn precinct(&self, r: u8) -> (u8, u8) {
        let exponents = self.precincts.get(usize::from(r)).copied().unwrap_or(0xFF);
        (exponents & 0x0F, exponents >> 4)
    }

    /// Maximum number of precincts of resolution `r` in a tile.
    pub fn precincts_at(&self, r: u8, siz: &Siz) -> u64 {
        let ((width, height), (x, y)) = (self.reduced(r, siz), self.precinct(r));
        // An image with an offset from the origin may touch one more.
        let more = u64::from(siz.offset != (0, 0));
        (width.div_ceil(1 << x) + more) * (height.div_ceil(1 << y) + more)
    }

    /// Approximate number of code-blocks of resolution `r` in a tile: precincts limit their size
    /// (annex B.7).
    pub fn blocks_at(&self, r: u8, siz: &Siz) -> u64 {
        let ((width, height), (x, y)) = (self.reduced(r, siz), self.precinct(r));
        let halved = u8::from(r > 0);
        let side = |size: u64, block: u8, precinct: u8| {
            size.div_ceil(1 << (block + halved).min(precinct)) + 1
        };
        let bands = if r > 0 { 3 } else { 1 };
        bands * side(width, self.block.0, x) * side(height, self.block.1, y)
    }

    /// Positions of the reference grid at which a precinct of some resolution may begin, from the
    /// smallest step along each axis.
    pub fn positions(&self, siz: &Siz) -> u64 {
        let Some((width, height)) = siz.extent() else { return 0 };
        let step = |exponent: fn((u8, u8)) -> u8| {
            let of = |r: u8| u32::from(exponent(self.precinct(r)) + self.levels - r).min(32);
            (0..=self.levels).map(of).min().unwrap_or(0)
        };
        let along = |size: u32, tile: u32, step: u32| (u64::from(size.min(tile)) >> step) + 2;
        along(width, siz.tile.0, step(|p| p.0)) * along(height, siz.tile.1, step(|p| p.1))
    }

    /// Rejects codestreams that would cost a decoder memory or time out of proportion to the image.
    pub fn check_work(&self, siz: &Siz, tiles: u64, may_change_progression: bool) -> Result<()> {
        if self.layers == 0 {
            return Err(corrupt("codestream declares no quality layer"));
        }
        let all = |of: &dyn Fn(u8) -> u64| {
            (0..=self.levels).map(of).fold(0, u64::saturating_add).saturating_mul(tiles)
        };
        let precincts = all(&|r| self.precincts_at(r, siz));
        let blocks = all(&|r| self.blocks_at(r, siz));
        // Decoders size their bookkeeping by the resolution with the most precincts, for every
        // resolution.
        let most = (0..=self.levels).map(|r| self.precincts_at(r, siz)).max().unwrap_or(0);
        let packets = all(&|_| most).saturating_mul(u64::from(self.layers));
        let progressions = if may_change_progression { MAX_PROGRESSIONS } else { 1 };
        let positions = all(&|_| self.positions(siz)).saturating_mul(progressions);
        for (what, count, most) in [
            ("precincts", precincts, MAX_PRECINCTS),
            ("code-blocks", blocks, MAX_BLOCKS),
            ("packets", packets, MAX_PACKETS),
            ("positions of packets", positions, MAX_POSITIONS),
        ] {
            if count > most {
                return Err(corrupt(format!("codestream declares {count} {what}, {most} at most")));
            }
        }
        Ok(())
    }

    /// Rejects codestreams that are too short for their packets: each takes at least one byte
    /// (annex B.10). The count is exact for whole tiles and too high for those at the edges.
    pub fn check_packets(&self, siz: &Siz, tiles: u64, bytes: usize) -> Result<()> {
        const EDGES: u64 = 16;
        const FEW: u64 = 4096;
        let precincts = (0..=self.levels).map(|r| self.precincts_at(r, siz));
        let precincts = precincts.fold(0, u64::saturating_add).saturating_mul(tiles);
        let packets = precincts.saturating_mul(u64::from(self.layers));
        if packets <= FEW.saturating_add((bytes as u64).saturating_mul(EDGES)) {
            return Ok(());
        }
        Err(corrupt(format!("{bytes} bytes of codestream cannot hold its {packets} packets")))
    }

    /// Whether HT is the only block style and the packets are few enough to be listed.
    pub fn is_plain(&self, siz: &Siz) -> bool {
        let precincts = (0..=self.levels).map(|r| self.precincts_at(r, siz));
        let precincts = precincts.fold(0, u64::saturating_add);
        // A precinct's side in a subband is half its side in the resolution (annex B.7).
        let halves = |r: u8| r == 0 || (self.precinct(r).0 > 0 && self.precinct(r).1 > 0);
        self.style & !7 == 0
            && self.block_style == 0x40
            && self.reversible
            && self.progression <= 4
            && (0..=self.levels).all(halves)
            && precincts.saturating_mul(self.layers.into()) <= MAX_PLAIN_PACKETS
    }

    pub fn tile(&self, siz: &Siz, bit_planes: Vec<u8>) -> Tile {
        Tile {
            size: siz.size,
            levels: self.levels,
            block: self.block,
            precincts: (0..=self.levels).map(|r| self.precinct(r)).collect(),
            layers: self.layers,
            progression: self.progression,
            may_have_sop: self.style & 2 != 0,
            has_eph: self.style & 4 != 0,
            bit_planes,
        }
    }
}
