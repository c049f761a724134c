//! The entry points for fuzzing: for each parser of untrusted bytes, a function that accepts any
//! bytes.
//!
//! `fuzz/fuzz_targets` calls them with libFuzzer's inputs, and the tests call them with every file
//! of `fuzz/regressions`. A function returns whatever its input holds, error or not; it panics if a
//! guarantee is broken: an output larger than its bound, a panic of this crate's own code, a tree
//! that is deeper than allowed.

pub mod ht;

use std::cell::Cell;
use std::io::Cursor;
use std::panic::PanicHookInfo;
use std::sync::Once;

use bytes::Bytes;
use serde_json::json;

use crate::codec::{FrameFormat, TransferSyntaxEntry, decode_with, transfer_syntaxes};
use crate::dicom::media_type::MediaType;
use crate::dicom::{ahi_metadata, multipart, p10};
use crate::source::archive::{self, Format, Limits};
use crate::{bundle, postprocess, server, transforms};

/// A parser of untrusted bytes.
pub struct Target {
    /// Its name, which is also that of the fuzz target and of the folder of its regressions.
    pub name: &'static str,
    run: fn(&[u8]),
}

impl Target {
    /// Runs the parser on `input`.
    ///
    /// # Panics
    /// Panics if a guarantee is broken, see the module documentation.
    pub fn read(&self, input: &[u8]) {
        watch_panics();
        OWN_PANICS.set(0);
        (self.run)(input);
        assert_eq!(OWN_PANICS.get(), 0, "code of this crate panicked");
    }
}

/// Runs the target with this name on `input`.
///
/// # Panics
/// Panics like [`Target::read`], and if there is no such target.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("there is no target {name}")).read(input);
}

/// All parsers of untrusted bytes.
pub const TARGETS: &[Target] = &[
    Target { name: "dicom", run: dicom },
    Target { name: "codec_native", run: codec_native },
    Target { name: "codec_rle", run: codec_rle },
    Target { name: "codec_jpeg", run: codec_jpeg },
    Target { name: "codec_jpegls", run: codec_jpegls },
    Target { name: "codec_jpegxl", run: codec_jpegxl },
    Target { name: "codec_jpeg2000", run: codec_jpeg2000 },
    Target { name: "codec_htj2k", run: codec_htj2k },
    Target { name: "codec_ht", run: ht::read },
    Target { name: "ahi_metadata", run: ahi_metadata },
    Target { name: "archive", run: archive },
    Target { name: "multipart", run: multipart },
    Target { name: "request_json", run: request_json },
    Target { name: "request_lines", run: request_lines },
    Target { name: "bundle_config", run: bundle_config },
    Target { name: "bundle_expression", run: bundle_expression },
];

/// A DICOM file: an error, or an instance whose frames are no larger than the file plus the memory
/// announced to `hold`.
fn dicom(input: &[u8]) {
    let mut held = 0;
    let mut hold = |bytes| {
        held += bytes;
        Ok(())
    };
    let content = p10::examine_from(input, input.len() as u64, &mut hold);
    // Inflated data is larger, and is announced.
    let most = held + input.len() as u64;
    if let Ok(p10::Content::Image(instance)) = content {
        let total: usize = instance.frames.iter().map(|f| f.len()).sum();
        assert!(total as u64 <= most, "{total} bytes of frames of {}", input.len());
        let _ = FrameFormat::from_dataset(&instance.dataset);
        let _ = p10::described(instance);
    }
}

/// Native pixels.
fn codec_native(input: &[u8]) {
    codec(input, |uid| matches!(uid, "1.2.840.10008.1.2" | "1.2.840.10008.1.2.1"));
}

/// RLE Lossless.
fn codec_rle(input: &[u8]) {
    codec(input, |uid| uid == "1.2.840.10008.1.2.5");
}

/// JPEG, lossy and lossless.
fn codec_jpeg(input: &[u8]) {
    let jpeg = ["50", "51", "57", "70"];
    codec(input, |uid| uid.rsplit('.').next().is_some_and(|last| jpeg.contains(&last)));
}

/// JPEG-LS.
fn codec_jpegls(input: &[u8]) {
    codec(input, |uid| uid.ends_with(".4.80") || uid.ends_with(".4.81"));
}

/// JPEG XL.
fn codec_jpegxl(input: &[u8]) {
    codec(input, |uid| uid.contains(".4.11"));
}

/// JPEG 2000.
fn codec_jpeg2000(input: &[u8]) {
    codec(input, |uid| uid.ends_with(".4.90") || uid.ends_with(".4.91"));
}

/// HTJ2K.
fn codec_htj2k(input: &[u8]) {
    codec(input, |uid| uid.contains(".4.20"));
}

/// Decodes a frame with every decoder of a transfer syntax: an error or a whole frame. The first
/// eight bytes select the syntax and the format (which may claim any size), the rest is the frame.
fn codec(input: &[u8], of_family: impl Fn(&str) -> bool) {
    let Some((&[syntax, flags, stored, _, r0, r1, c0, c1], data)) = input.split_first_chunk::<8>()
    else {
        return;
    };
    let (bits_allocated, float) = match (flags >> 6, flags & 1) {
        (1, _) => (32, false),
        (2, _) => (32, true),
        (3, _) => (64, true),
        (_, 0) => (8, false),
        _ => (16, false),
    };
    let format = FrameFormat {
        rows: u32::from(u16::from_le_bytes([r0, r1])).max(1),
        columns: u32::from(u16::from_le_bytes([c0, c1])).max(1),
        bits_allocated,
        bits_stored: if float { bits_allocated } else { u16::from(stored) % bits_allocated + 1 },
        signed: float || flags & 2 != 0,
        float,
    };
    let family: Vec<&TransferSyntaxEntry> =
        transfer_syntaxes().iter().filter(|entry| of_family(entry.uid)).collect();
    let entry = family[usize::from(syntax) % family.len()];
    for &decoder in entry.decoders {
        if let Ok(samples) = decode_with(decoder, entry.uid, data, &format) {
            assert_eq!(samples.len(), format.pixels());
        }
    }
}

/// AHI's metadata document, compressed or not.
fn ahi_metadata(input: &[u8]) {
    const LIMIT: u64 = 8 << 20;
    if let Ok(document) = ahi_metadata::read::decompress(input, LIMIT) {
        assert!(document.len() as u64 <= LIMIT);
        let _ = ahi_metadata::parse(&document);
    }
}

/// An archive: an error, or files whose total size is within the limit.
fn archive(input: &[u8]) {
    let limits = Limits { bytes: 16 << 20, entries: 1000 };
    let Some(format) = archive::format(input) else { return };
    if matches!(format, Format::Dicom | Format::Json) {
        return;
    }
    let (mut total, mut files) = (0, 0);
    let _ =
        archive::read(Cursor::new(input), input.len() as u64, format, limits, &mut |_, data| {
            total += data.len() as u64;
            files += 1;
            Ok(())
        });
    assert!(total <= limits.bytes && files <= limits.entries, "{total} bytes in {files} files");
}

/// A multipart message, preceded by a line with its content type: an error, or parts that lie
/// within it.
fn multipart(input: &[u8]) {
    const MOST_PARTS: usize = 100;
    let (line, message) = input.split_at(input.iter().position(|b| *b == b'\n').unwrap_or(0));
    let Some(content_type) = std::str::from_utf8(line).ok().and_then(MediaType::parse) else {
        return;
    };
    let Ok(boundary) = multipart::boundary(&content_type) else { return };
    let message = Bytes::copy_from_slice(message.get(1..).unwrap_or_default());
    if let Ok(parts) = multipart::read(&message, boundary, MOST_PARTS) {
        let total: usize = parts.iter().map(|part| part.data.len()).sum();
        assert!(parts.len() <= MOST_PARTS && total <= message.len(), "{total} bytes of parts");
    }
}

/// A request in JSON.
fn request_json(input: &[u8]) {
    let _ = server::read_request(input);
}

/// Requests in JSON Lines.
fn request_lines(input: &[u8]) {
    for line in input.split(|b| *b == b'\n') {
        let _ = server::read_request(line);
    }
}

/// `configs/inference.json`, `configs/metadata.json` and `serving.json`, separated by zero bytes.
fn bundle_config(input: &[u8]) {
    let mut parts = input.splitn(3, |b| *b == 0);
    let inference = parts.next().unwrap_or_default();
    let metadata = parts.next().unwrap_or(b"{}");
    let serving = parts.next().and_then(|text| bundle::serving::Serving::parse(text).ok());
    if let Ok(config) = bundle::BundleConfig::parse(inference, metadata) {
        let _ = transforms::Preprocessing::new(&config.preprocessing, &config.image_keys);
        let _ = postprocess::PostPlan::new(&config.postprocessing);
    }
    for image in serving.iter().flat_map(|serving| &serving.images) {
        let _ = crate::dicom::selection::Selection::new(&image.conditions);
    }
}

/// A Python expression, where a bundle may contain one.
fn bundle_expression(input: &[u8]) {
    let Ok(source) = std::str::from_utf8(input) else { return };
    let text = format!("${source}");
    let config = json!({
        "imports": ["$import glob", "$from os import path as p"],
        "a": [1, 2.5, "three", null, true], "b": {"c": "@a", "d": "$@a + @a"}, "e": "@b#d",
        "preprocessing": {"_target_": "Compose", "transforms": [
            {"_target_": "LoadImaged", "keys": "image", "x": text}]},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": [
            {"_target_": "Lambdad", "keys": "pred", "func": text}]},
    });
    let _ = bundle::BundleConfig::parse(config.to_string().as_bytes(), b"{}");
}

thread_local! {
    /// Number of panics of this crate's own code on this thread.
    static OWN_PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Counts panics. A library's panic is contained and becomes an error, as intended; a panic of this
/// crate's own code is a finding, contained or not.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            let file = info.location().map_or("", |location| location.file());
            if file.contains("/registry/src/") || file.contains("/rustc/") {
                return;
            }
            OWN_PANICS.set(OWN_PANICS.get() + 1);
            before(info);
        }));
    });
}
