//! Decodes HTJ2K frames for `scripts/bench-codec.py`, which times other decoders alongside.
//!
//! The arguments are codestream files. The program prints the names of its decoders. For each line
//! "DECODER FRAME TIMES" on standard input it then decodes that frame TIMES times on one thread, and prints the
//! CRC-32 of the pixels (16 bits, little-endian) and the nanoseconds each decoding took.

use std::io::{BufRead, Write};
use std::time::Instant;

use ahi_inference::codec::{
    Decoder, FrameFormat, Instructions, Samples, decode_htj2k, decode_with, recycle,
};
use openjph_core::codestream::Codestream;
use openjph_core::file::MemInfile;

const HTJ2K: &str = "1.2.840.10008.1.2.4.201";

struct Frame {
    data: Vec<u8>,
    format: FrameFormat,
}

impl Frame {
    /// Reads a codestream. Size, depth and sign come from its SIZ segment (ISO/IEC 15444-1 A.5.1).
    fn read(path: &str) -> Self {
        let data = std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(data.len() > 43 && data[..4] == [0xFF, 0x4F, 0xFF, 0x51], "{path}: no codestream");
        let be32 = |at: usize| data[at..at + 4].iter().fold(0, |n, &b| (n << 8) | u32::from(b));
        let format = FrameFormat {
            rows: be32(12),
            columns: be32(8),
            bits_allocated: 16,
            bits_stored: u16::from(data[42] & 0x7F) + 1,
            signed: data[42] & 0x80 != 0,
            float: false,
        };
        Self { data, format }
    }
}

/// A decoder to time.
#[derive(Clone, Copy)]
enum By {
    Own(Instructions),
    OpenJphCore,
    OpenJp2,
}

impl By {
    fn all() -> Vec<(String, Self)> {
        let own = Instructions::available().into_iter();
        let mut all: Vec<_> =
            own.map(|with| (format!("own/{with}").replace(' ', "-"), Self::Own(with))).collect();
        all.push(("openjph-core".into(), Self::OpenJphCore));
        all.push(("openjp2".into(), Self::OpenJp2));
        all
    }

    fn decode(self, frame: &Frame) -> Samples {
        let Frame { data, format } = frame;
        match self {
            Self::Own(with) => decode_htj2k(data, format, 0, with)
                .expect("a sound frame")
                .expect("a frame of the plain form"),
            Self::OpenJphCore => openjph_core(data, format).expect("a sound frame"),
            Self::OpenJp2 => {
                decode_with(Decoder::OpenJp2, HTJ2K, data, format).expect("a sound frame")
            }
        }
    }
}

fn openjph_core(data: &[u8], format: &FrameFormat) -> Option<Samples> {
    let mut file = MemInfile::new(data);
    let mut coder = Codestream::new();
    coder.read_headers(&mut file).ok()?;
    coder.create(&mut file).ok()?;
    let lines = (0..format.rows).map(|_| coder.pull(0));
    if format.signed {
        let mut out = Vec::with_capacity(format.pixels());
        for line in lines {
            out.extend(line?.iter().map(|&v| v as i16));
        }
        Some(Samples::I16(out))
    } else {
        let mut out = Vec::with_capacity(format.pixels());
        for line in lines {
            out.extend(line?.iter().map(|&v| v as u16));
        }
        Some(Samples::U16(out))
    }
}

fn main() {
    // `cargo bench` adds a flag of its own. Without frames there is nothing to do.
    let paths: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let frames: Vec<Frame> = paths.iter().map(|path| Frame::read(path)).collect();
    if frames.is_empty() {
        println!("codec: see scripts/bench-codec.sh");
        return;
    }
    let decoders = By::all();
    let names: Vec<&str> = decoders.iter().map(|(name, _)| &name[..]).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", names.join(" ")).and_then(|()| out.flush()).expect("a reader");
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split(' ').collect();
        let &[decoder, frame, times] = &words[..] else {
            panic!("{line}: three words are expected")
        };
        let (_, by) = decoders.iter().find(|(name, _)| name == decoder).expect("a decoder");
        let frame = &frames[frame.parse::<usize>().expect("a number")];
        let mut taken = Vec::new();
        let mut crc = 0;
        for time in 0..times.parse::<usize>().expect("a number") {
            let start = Instant::now();
            let samples = by.decode(frame);
            taken.push(start.elapsed().as_nanos().to_string());
            if time == 0 {
                crc = samples.crc32(16);
            }
            recycle(samples);
        }
        writeln!(out, "{crc} {}", taken.join(" ")).and_then(|()| out.flush()).expect("a reader");
    }
}
