//! Fuzzes HTJ2K code-blocks in otherwise valid codestreams, because random bytes would not get past
//! a header.

use crate::codec::plain::{Plain, PlainBlock};
use crate::codec::{Instructions, Samples, decode_htj2k, decode_reduced};
use crate::error::{ErrorKind, Result};

/// A transfer syntax of plain JPEG 2000, which only `openjp2` decodes.
const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";

/// Flags in the fourth header byte: packets are given literally; the last bytes of a cleanup pass
/// are repaired to hold a valid length.
const RAW: u8 = 0x80;
const REPAIR: u8 = 0x40;

/// Maximum width and height.
const MOST_SIDE: u8 = 128;

/// Returns the exponents of all valid code-block sizes.
fn block_sizes() -> Vec<(u8, u8)> {
    (2..=10).flat_map(|x| (2..=10).map(move |y| (x, y))).filter(|(x, y)| x + y <= 12).collect()
}

/// Decodes the codestream that an input describes, with every instruction set and with `openjp2`.
pub(super) fn read(input: &[u8]) {
    let Some((stream, packets, reduced)) = parse(input) else { return };
    let data = packets.map_or_else(|| stream.write(), |packets| stream.write_around(packets));
    compare(&data, &stream, reduced);
}

/// Decodes a codestream; returns whether it could be decoded.
///
/// # Panics
/// Panics if two instruction sets disagree, or `openjp2` decodes to other pixels.
pub fn compare(data: &[u8], stream: &Plain, reduced: u8) -> bool {
    let format = stream.format();
    let decoded = |instructions| match decode_htj2k(data, &format, reduced, instructions) {
        Ok(samples) => samples,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::CorruptFrame, "{e}");
            None
        }
    };
    let all = Instructions::available();
    let first = decoded(all[0]);
    for &other in &all[1..] {
        assert!(decoded(other) == first, "{other:?} differs from {:?}", all[0]);
    }
    let Some(samples) = first else { return false };
    // openjp2 does not support placeholder passes and takes a length of zero for a cleanup pass
    // without bytes, so it gets the same code-blocks in packets without placeholders.
    let Ok(Some(plain)) = Plain::read(data, &format) else { return true };
    let reference: Result<(_, Samples)> =
        decode_reduced(JPEG_2000, &plain.write(), &format, reduced);
    if let Ok((_, reference)) = reference {
        assert!(reference == samples, "openjp2 differs: {}", difference(&samples, &reference));
    }
    true
}

/// Describes the first pixel that differs.
fn difference(own: &Samples, other: &Samples) -> String {
    let bytes = [own.to_le_bytes(16), other.to_le_bytes(16)];
    let pixels = |bytes: &[u8]| -> Vec<u16> {
        bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
    };
    let [own, other] = bytes.map(|bytes| pixels(&bytes));
    match own.iter().zip(&other).position(|(a, b)| a != b) {
        Some(at) => format!("pixel {at} of {} is {}, not {}", own.len(), other[at], own[at]),
        None => format!("{} pixels, not {}", other.len(), own.len()),
    }
}

/// Parses an input into a codestream, its packets if they are given literally, and how often its
/// sides are halved.
pub fn parse(input: &[u8]) -> Option<(Plain, Option<&[u8]>, u8)> {
    let (&[width, height, levels, flags, block, depth], rest) = input.split_first_chunk::<6>()?;
    let size = (u32::from(width % MOST_SIDE) + 1, u32::from(height % MOST_SIDE) + 1);
    let (levels, reduced) = (levels & 7, levels >> 3 & 3);
    let sizes = block_sizes();
    let (planes, rest) = rest.split_at_checked(3 * usize::from(levels) + 1)?;
    let mut stream = Plain {
        size,
        levels,
        block: sizes[usize::from(block) % sizes.len()],
        precision: (depth & 15) + 1,
        signed: depth & 0x80 != 0,
        progression: (flags & 7) % 5,
        bit_planes: planes.iter().map(|planes| planes % 31).collect(),
        blocks: Vec::new(),
    };
    if flags & RAW != 0 {
        return Some((stream, Some(rest), reduced));
    }
    let mut rest = rest;
    let mut block = || take_block(&mut rest, flags & REPAIR != 0);
    stream.blocks = stream.shapes().iter().map(|_| block()).collect();
    Some((stream, None, reduced))
}

/// Takes the next code-block: passes and bit-planes, two lengths, bytes (for the last block, as
/// many as there are).
fn take_block(rest: &mut &[u8], repair: bool) -> Option<PlainBlock> {
    let (&[control, low, high, more], bytes) = rest.split_first_chunk::<4>()?;
    let passes = u32::from(control >> 5 & 3);
    if passes == 0 {
        *rest = &rest[1..];
        return None;
    }
    let cleanup = usize::from(u16::from_le_bytes([low, high])).min(bytes.len());
    let (cleanup, bytes) = bytes.split_at(cleanup);
    let refinement = if passes > 1 { usize::from(more).min(bytes.len()) } else { 0 };
    let (refinement, bytes) = bytes.split_at(refinement);
    *rest = bytes;
    let mut cleanup = cleanup.to_vec();
    if repair {
        repair_suffix(&mut cleanup);
    }
    let refinement = refinement.to_vec();
    Some(PlainBlock { passes, skipped: u32::from(control & 31), cleanup, refinement })
}

/// Makes the length in the last 12 bits a valid one.
fn repair_suffix(cleanup: &mut [u8]) {
    let most = cleanup.len().min(4079);
    let [.., low, high] = cleanup else { return };
    let length = (usize::from(*high) << 4) | usize::from(*low & 15);
    let length = if (2..=most).contains(&length) { length } else { 2 + length % (most - 1) };
    *low = (*low & 0xF0) | (length & 15) as u8;
    *high = (length >> 4) as u8;
}

/// Returns the input that describes a codestream; `None` if no input can, because the image is too
/// large.
pub fn input(stream: &Plain, reduced: u8) -> Option<Vec<u8>> {
    let side = |side: u32| u8::try_from(side - 1).ok().filter(|&s| s < MOST_SIDE);
    let block = block_sizes().iter().position(|&size| size == stream.block)?;
    let mut input = vec![
        side(stream.size.0)?,
        side(stream.size.1)?,
        stream.levels | (reduced << 3),
        stream.progression,
        block as u8,
        (stream.precision - 1) | (u8::from(stream.signed) << 7),
    ];
    input.extend(&stream.bit_planes);
    for block in &stream.blocks {
        let Some(block) = block else {
            input.push(0);
            continue;
        };
        input.push(((block.passes << 5) | block.skipped) as u8);
        input.extend(u16::try_from(block.cleanup.len()).ok()?.to_le_bytes());
        input.push(u8::try_from(block.refinement.len()).ok()?);
        input.extend(&block.cleanup);
        input.extend(&block.refinement);
    }
    // The rest of the header of an absent block.
    input.extend([0; 3]);
    Some(input)
}

/// Like [`input`], with literal packets.
pub fn raw_input(stream: &Plain, packets: &[u8]) -> Option<Vec<u8>> {
    let mut raw = input(&Plain { blocks: Vec::new(), ..stream.clone() }, 0)?;
    raw.truncate(raw.len() - 3);
    raw[3] |= RAW;
    raw.extend(packets);
    Some(raw)
}
