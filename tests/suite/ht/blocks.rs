//! Code-blocks that no encoder produced: damaged ones, and ones with refinement passes.

use std::cell::Cell;
use std::fs;

use ahi_inference::codec::plain::{Plain, PlainBlock};
use ahi_inference::codec::{Instructions, decode, decode_htj2k};
use ahi_inference::fuzzing::ht::{compare, input, parse, raw_input};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::JPEG_2000;
use super::images::{Content, Image, Random, images};
use super::refinement;

/// Encodes an image with one precinct per resolution and parses its codestream. Returns `None` if the encoder
/// fails or no block is coded.
fn parts(image: &Image) -> Option<Plain> {
    let image = Image { progression: "RPCL", precincts: None, is_divided: false, ..image.clone() };
    let stream = Plain::read(&image.encode()?, &image.format).ok()??;
    stream.blocks.iter().any(Option::is_some).then_some(stream)
}

#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u32),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Delete(Index, usize),
    Truncate(Index),
    /// Length of the suffix, in the last 12 bits.
    Suffix(Index),
    Skipped(i32),
    Passes(u32, Vec<u8>),
    Planes(Index, i32),
    Drop,
}

fn changes() -> impl Strategy<Value = Change> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 1..most);
    prop_oneof![
        6 => (any::<Index>(), 0_u32..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (any::<Index>(), prop::sample::select(vec![0, 0x7F, 0x80, 0x8F, 0x90, 0xFF]))
            .prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (any::<Index>(), bytes(6)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (any::<Index>(), 1_usize..6).prop_map(|(at, count)| Change::Delete(at, count)),
        1 => any::<Index>().prop_map(Change::Truncate),
        2 => any::<Index>().prop_map(Change::Suffix),
        1 => (-3..4).prop_map(Change::Skipped),
        1 => (2_u32..4, bytes(40)).prop_map(|(passes, bytes)| Change::Passes(passes, bytes)),
        1 => (any::<Index>(), -4..5).prop_map(|(at, by)| Change::Planes(at, by)),
        1 => Just(Change::Drop),
    ]
}

fn change_block(block: &mut PlainBlock, change: &Change) {
    let bytes = &mut block.cleanup;
    let length = bytes.len();
    if length < 2 {
        return;
    }
    match change {
        Change::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
        Change::Set(at, byte) => bytes[at.index(length)] = *byte,
        Change::Insert(at, more) => {
            let at = at.index(length);
            bytes.splice(at..at, more.iter().copied());
        }
        Change::Delete(at, count) => {
            let at = at.index(length);
            bytes.drain(at..length.min(at + count));
        }
        Change::Truncate(at) => bytes.truncate(at.index(length)),
        Change::Suffix(to) => {
            let to = to.index(length.min(4080));
            bytes[length - 2] = (bytes[length - 2] & 0xF0) | (to & 15) as u8;
            bytes[length - 1] = (to >> 4) as u8;
        }
        Change::Skipped(by) => block.skipped = block.skipped.saturating_add_signed(*by),
        Change::Passes(passes, bytes) => {
            block.skipped = block.skipped.saturating_sub(1);
            (block.passes, block.refinement) = (*passes, bytes.clone());
        }
        Change::Planes(..) | Change::Drop => {}
    }
}

fn apply(stream: &mut Plain, at: Index, change: &Change) {
    let included: Vec<usize> =
        (0..stream.blocks.len()).filter(|&n| stream.blocks[n].is_some()).collect();
    let Some(&number) = included.get(at.index(included.len().max(1))) else { return };
    match (change, &mut stream.blocks[number]) {
        (Change::Drop, block) => *block = None,
        (Change::Planes(band, by), _) => {
            let band = band.index(stream.bit_planes.len());
            let planes = &mut stream.bit_planes[band];
            *planes = planes.saturating_add_signed(*by as i8).min(30);
        }
        (change, Some(block)) => change_block(block, change),
        (_, None) => {}
    }
}

#[test]
fn damaged_blocks_are_the_same_to_all_instructions_and_to_openjp2() {
    const CASES: u32 = 8000;
    let (tried, accepted) = (Cell::new(0), Cell::new(0));
    let damage = prop::collection::vec((any::<Index>(), changes()), 1..4);
    let config = Config { cases: CASES, source_file: Some(file!()), ..Config::default() };
    let result =
        TestRunner::new(config).run(&(images(40), damage, 0_u8..6), |(image, damage, reduced)| {
            let Some(mut stream) = parts(&image) else { return Ok(()) };
            for (at, change) in &damage {
                apply(&mut stream, *at, change);
            }
            tried.set(tried.get() + 1);
            // Mostly at full resolution.
            let is_decoded = compare(&stream.write(), &stream, reduced.saturating_sub(3));
            accepted.set(accepted.get() + u32::from(is_decoded));
            Ok(())
        });
    let (tried, accepted) = (tried.get(), accepted.get());
    println!("{accepted} of {tried} damaged codestreams were decoded");
    if let Err(e) = result {
        panic!("{e}");
    }
    assert!(tried > CASES / 2 && accepted > tried / 20, "{accepted} of {tried}");
}

#[test]
fn damaged_packets_are_the_same_to_all_instructions_and_to_openjp2() {
    let edits = prop::collection::vec((any::<Index>(), any::<u8>(), 0_u8..4), 1..4);
    let config = Config { cases: 4000, source_file: Some(file!()), ..Config::default() };
    let result = TestRunner::new(config).run(&(images(40), edits), |(image, edits)| {
        let Some(stream) = parts(&image) else { return Ok(()) };
        let mut packets = stream.packets();
        for (at, byte, kind) in edits {
            let at = at.index(packets.len());
            match kind {
                0 => packets[at] = byte,
                1 => packets.insert(at, byte),
                2 if packets.len() > 1 => drop(packets.remove(at)),
                _ => packets[at] ^= 1 << (byte & 7),
            }
        }
        compare(&stream.write_around(&packets), &stream, 0);
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}

#[test]
fn codestreams_are_put_together_as_they_were_taken_apart() {
    let config = Config { cases: 200, source_file: Some(file!()), ..Config::default() };
    let result = TestRunner::new(config).run(&images(150), |image| {
        let Some(stream) = parts(&image) else { return Ok(()) };
        let again = Plain::read(&stream.write(), &image.format).unwrap();
        prop_assert_eq!(again.as_ref(), Some(&stream));
        // Also with refinement passes: these blocks are not decoded, but packets can carry them.
        let mut changed = stream.clone();
        for (n, block) in changed.blocks.iter_mut().flatten().enumerate() {
            block.passes = 1 + n as u32 % 3;
            block.refinement = vec![7; if block.passes > 1 { 1 + n * 31 % 900 } else { 0 }];
            block.skipped = n as u32 % 28;
        }
        let again = Plain::read(&changed.write(), &image.format).unwrap();
        prop_assert_eq!(again, Some(changed));
        if stream.size.0.max(stream.size.1) <= 128 {
            let bytes = input(&stream, 1).unwrap();
            let (parsed, packets, reduced) = parse(&bytes).unwrap();
            let parsed = Plain { progression: stream.progression, ..parsed };
            prop_assert!(parsed == stream && packets.is_none() && reduced == 1);
            let raw = raw_input(&stream, &stream.packets()).unwrap();
            let (_, packets, _) = parse(&raw).unwrap();
            prop_assert_eq!(packets, Some(&stream.packets()[..]));
        }
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}

/// A block of coefficients: signed pixels of an image without a wavelet transform.
fn block_image(columns: u32, rows: u32, content: Content, seed: u32) -> Image {
    let format = ahi_inference::codec::FrameFormat {
        rows,
        columns,
        bits_allocated: 16,
        bits_stored: 12,
        signed: true,
        float: false,
    };
    Image {
        format,
        levels: 0,
        block: (6, 6),
        progression: "RPCL",
        precincts: None,
        is_divided: false,
        content,
        seed,
    }
}

/// Coefficients with few significant samples at `plane`, so that the propagation pass has work to do.
fn coefficients(image: &Image, plane: u32) -> Vec<i32> {
    let mut random = Random(image.seed);
    let values = image.pixels().len();
    (0..values)
        .map(|_| {
            let magnitude = (random.next() % (4 << plane)) as i32;
            let magnitude =
                if random.next().is_multiple_of(3) { magnitude } else { magnitude >> 2 };
            if random.next().is_multiple_of(2) { -magnitude } else { magnitude }
        })
        .collect()
}

#[test]
fn refinement_passes_are_exact() {
    let mut decoded = 0;
    for seed in 0..150 {
        let mut random = Random(seed);
        let (columns, rows) = (1 + random.next() % 64, 1 + random.next() % 64);
        let image = block_image(columns, rows, Content::Noise, seed);
        let (plane, passes) = (1 + seed % 3, 2 + seed / 3 % 2);
        let coefficients = coefficients(&image, plane);
        let Some(stream) = refinement::stream(&image, &coefficients, plane, passes) else {
            continue;
        };
        let data = stream.write();
        let expected = refinement::expected(&coefficients, columns as usize, plane, passes);
        let reference = decode(JPEG_2000, &data, &image.format).unwrap();
        for instructions in Instructions::available() {
            let samples = decode_htj2k(&data, &image.format, 0, instructions).unwrap().unwrap();
            assert!(samples == reference, "{seed} by {instructions}: not openjp2's");
            assert!(samples == expected, "{seed} by {instructions}: not what was encoded");
        }
        decoded += 1;
    }
    assert!(decoded > 100, "{decoded}");
}

/// Decodes seed inputs for fuzzing, and writes them to the folder `AHI_HT_SEEDS` if it is set.
/// `fuzz/seeds/codec_ht` holds some of them.
#[test]
fn seeds_of_fuzzing_are_decoded() {
    let mut seeds = Vec::new();
    let contents =
        [Content::Noise, Content::Smooth, Content::Sparse, Content::Extremes(2), Content::Constant];
    for (n, content) in contents.into_iter().cycle().take(20).enumerate() {
        let n = n as u32;
        let (columns, rows) = ([8, 13, 32, 20][n as usize % 4], [8, 9, 16, 33][n as usize % 4]);
        let mut image = block_image(columns, rows, content, n);
        image.format.bits_stored = [8, 12, 16, 10][n as usize / 4 % 4];
        image.format.signed = n.is_multiple_of(3);
        image.levels = n / 2 % 5;
        image.block = [(6, 6), (3, 3), (2, 2), (4, 2), (10, 2)][n as usize / 3 % 5];
        let Some(stream) = parts(&image) else { continue };
        assert!(compare(&stream.write(), &stream, 0), "{image:?}");
        seeds.push(input(&stream, (n % 2) as u8).unwrap());
        if n.is_multiple_of(5) {
            seeds.push(raw_input(&stream, &stream.packets()).unwrap());
        }
    }
    for (plane, passes) in [(1, 2), (1, 3), (3, 3)] {
        let image = block_image(16, 12, Content::Noise, plane);
        let coefficients = coefficients(&image, plane);
        let stream = refinement::stream(&image, &coefficients, plane, passes).unwrap();
        assert!(compare(&stream.write(), &stream, 0));
        seeds.push(input(&stream, 0).unwrap());
    }
    assert!(seeds.len() > 20, "{}", seeds.len());
    if let Some(folder) = std::env::var_os("AHI_HT_SEEDS").map(std::path::PathBuf::from) {
        fs::create_dir_all(&folder).unwrap();
        for (n, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("{n:02}")), seed).unwrap();
        }
    }
}
