//! Random images of every depth, sign, level count and block size.

use std::cell::Cell;

use ahi_inference::codec::plain::Plain;
use ahi_inference::codec::{Instructions, decode, decode_htj2k, decode_reduced};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::JPEG_2000;
use super::images::{Image, images};

const CASES: u32 = 1500;

/// Counts cases by outcome.
#[derive(Default)]
struct Counts {
    /// `openjp2` decodes the original image.
    exact: Cell<u32>,
    /// The encoder failed, or `openjp2` does not decode the original image from its output.
    unreadable: Cell<u32>,
}

fn count(counter: &Cell<u32>) {
    counter.set(counter.get() + 1);
}

/// Decodes an image with every instruction set and with `openjp2`. They must agree if both decode it.
fn check(image: &Image, counts: &Counts) -> Result<(), TestCaseError> {
    let Some(data) = image.encode() else {
        count(&counts.unreadable);
        return Ok(());
    };
    let truth = image.samples();
    let reference = decode(JPEG_2000, &data, &image.format);
    let is_sound = reference.as_ref().is_ok_and(|reference| *reference == truth);
    for instructions in Instructions::available() {
        let decoded = decode_htj2k(&data, &image.format, 0, instructions);
        if is_sound {
            let decoded =
                decoded.map_err(|e| TestCaseError::fail(format!("{instructions}: {e}")))?;
            if decoded.as_ref() != Some(&truth) {
                return Err(TestCaseError::fail(format!("{instructions}: not the image")));
            }
        } else if let (Ok(Some(decoded)), Ok(reference)) = (&decoded, &reference)
            && decoded != reference
        {
            return Err(TestCaseError::fail(format!("{instructions}: not openjp2's")));
        }
    }
    if !is_sound {
        count(&counts.unreadable);
        return Ok(());
    }
    count(&counts.exact);
    check_reduced(image, &data)
}

fn check_reduced(image: &Image, data: &[u8]) -> Result<(), TestCaseError> {
    let reduced = 1 + (image.seed >> 8) as u8 % 4;
    let Ok((size, reference)) = decode_reduced(JPEG_2000, data, &image.format, reduced) else {
        return Ok(());
    };
    assert_eq!(size.pixels(), reference.len());
    for instructions in Instructions::available() {
        let decoded = decode_htj2k(data, &image.format, reduced, instructions);
        if !decoded.as_ref().is_ok_and(|d| d.as_ref() == Some(&reference)) {
            let of = decoded.map(|d| d.is_some());
            return Err(TestCaseError::fail(format!("{instructions} / {reduced}: {of:?}")));
        }
    }
    Ok(())
}

#[test]
fn random_images_are_exact() {
    let counts = Counts::default();
    let config = Config { cases: CASES, source_file: Some(file!()), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&images(200), |image| check(&image, &counts));
    let (exact, unreadable) = (counts.exact.get(), counts.unreadable.get());
    println!(
        "{exact} exact, {unreadable} that the encoder did not write so that openjp2 reads them"
    );
    if let Err(e) = result {
        panic!("{e}");
    }
    assert!(exact > CASES * 2 / 3, "{exact} of {CASES} were read");
}

/// Packets of several precincts, in every progression order, with and without markers, decode to the same image
/// as one precinct does, by `openjp2` too.
#[test]
fn precincts_in_every_order_are_exact() {
    let written = Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 150, ..Config::default() });
    let cases = (images(120), 0..5_u8, 0..3_u8, proptest::bool::ANY);
    let result = runner.run(&cases, |(image, progression, larger, marked)| {
        let image = Image { precincts: None, is_divided: false, ..image };
        let truth = image.samples();
        let Some(stream) = image.encode().and_then(|d| Plain::read(&d, &image.format).ok()?) else {
            return Ok(());
        };
        let Ok(reference) = decode(JPEG_2000, &stream.write(), &image.format) else {
            return Ok(());
        };
        if reference != truth {
            return Ok(());
        }
        let stream = Plain { progression, ..stream };
        let exponent = stream.block.0.max(stream.block.1) + 1 + larger;
        let data = stream.write_in_precincts(exponent, marked);
        for instructions in Instructions::available() {
            let decoded = decode_htj2k(&data, &image.format, 0, instructions);
            let decoded = decoded.map_err(|e| TestCaseError::fail(e.to_string()))?;
            if decoded.as_ref() != Some(&truth) {
                return Err(TestCaseError::fail(format!("{instructions}: {progression}")));
            }
        }
        let reference = decode(JPEG_2000, &data, &image.format);
        if reference.as_ref().ok() != Some(&truth) {
            return Err(TestCaseError::fail(format!("openjp2: {reference:?}")));
        }
        check_reduced(&image, &data)?;
        count(&written);
        Ok(())
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(written.get() > 100, "{}", written.get());
}
