//! Inputs found by fuzzing, and the stored seeds: each parser of untrusted bytes reads them again.

use std::fs;
use std::path::Path;

use ahi_inference::fuzzing::TARGETS;

#[test]
fn what_fuzzing_found_stays_mended() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut count = 0;
    for kind in ["regressions", "seeds"] {
        for folder in fs::read_dir(fuzz.join(kind)).unwrap() {
            let folder = folder.unwrap().path();
            let name = folder.file_name().unwrap().to_str().unwrap();
            let target = TARGETS.iter().find(|target| target.name == name);
            let target = target.unwrap_or_else(|| panic!("{kind}/{name} is of no target"));
            for file in fs::read_dir(&folder).unwrap() {
                let file = file.unwrap().path();
                println!("{}", file.display());
                target.read(&fs::read(&file).unwrap());
                count += 1;
            }
        }
    }
    assert!(count > 0);
}

#[test]
fn every_target_is_fuzzed_and_takes_any_bytes() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
        assert!(fuzz.join(format!("fuzz_targets/{}.rs", target.name)).exists(), "{}", target.name);
        for input in [&b""[..], b"\0", b"{", b"\xff\xd8", &[0; 64], &[0xff; 200]] {
            target.read(input);
        }
    }
}

/// 64,000 layers of 14 resolutions in 222 bytes: a decoder would look for every packet.
#[test]
fn more_packets_than_bytes_are_refused() {
    use ahi_inference::codec::{FrameFormat, decode};

    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let input = fs::read(fuzz.join("regressions/codec_htj2k/many-layers")).unwrap();
    let format = FrameFormat {
        rows: 64,
        columns: 64,
        bits_allocated: 16,
        bits_stored: 16,
        signed: true,
        float: false,
    };
    let error = decode("1.2.840.10008.1.2.4.203", &input[8..], &format).unwrap_err();
    assert!(error.message().contains("packets"), "{error}");
}
