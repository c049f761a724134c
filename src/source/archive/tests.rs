use std::io::{Cursor, Write};

use proptest::prelude::*;

use super::*;

/// A file that begins like a DICOM file.
fn dicom(rest: &[u8]) -> Vec<u8> {
    [&[0; 128][..], b"DICM", rest].concat()
}

const LIMITS: Limits = Limits { bytes: 1 << 30, entries: 100 };

fn zip_of(entries: &[(&str, &[u8], Option<u32>)]) -> Vec<u8> {
    let mut zip = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, data, mode) in entries {
        let mut options = ::zip::write::SimpleFileOptions::default();
        if let Some(mode) = mode {
            options = options.unix_permissions(*mode);
        }
        zip.start_file(*name, options).unwrap();
        zip.write_all(data).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Names are written into the header unchanged; the library itself would refuse some of them.
fn tar_of(entries: &[(&str, &[u8], ::tar::EntryType)]) -> Vec<u8> {
    let mut tar = ::tar::Builder::new(Vec::new());
    for (name, data, kind) in entries {
        let mut header = ::tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *data).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn files(archive: &[u8], limits: Limits) -> Result<Vec<(usize, Vec<u8>)>> {
    let mut files = Vec::new();
    let format = format(archive).ok_or_else(|| Error::internal("no known format"))?;
    read(Cursor::new(archive), archive.len() as u64, format, limits, &mut |number, data| {
        files.push((number, data));
        Ok(())
    })?;
    Ok(files)
}

use ::tar::EntryType::{Directory, Link, Regular, Symlink};

#[test]
fn files_come_in_their_order() {
    let zip = zip_of(&[("a/1", b"one", None), ("a/b/2", b"two", Some(0o644)), ("3", b"", None)]);
    let tar = tar_of(&[("a/", b"", Directory), ("a/1", b"one", Regular), ("2", b"two", Regular)]);
    let expected = [(1, b"one".to_vec()), (2, b"two".to_vec()), (3, Vec::new())];
    assert_eq!(files(&zip, LIMITS).unwrap(), expected);
    let expected = [(2, b"one".to_vec()), (3, b"two".to_vec())];
    assert_eq!(files(&tar, LIMITS).unwrap(), expected);
    assert_eq!(files(&gzip(&tar), LIMITS).unwrap(), expected);
}

#[test]
fn hostile_entries_refuse_the_archive() {
    for name in ["../x", "a/../../x", "/etc/x", "C:\\x", "..\\x", "a\\..\\x", "\\x"] {
        for archive in [zip_of(&[(name, b"x", None)]), tar_of(&[(name, b"x", Regular)])] {
            let error = files(&archive, LIMITS).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{name}");
            assert_eq!(error.details()["entry"], 1, "{name}: {error}");
            assert!(!error.message().contains(name), "{error}");
        }
    }
    for kind in [Link, Symlink, ::tar::EntryType::Fifo, ::tar::EntryType::Char] {
        let error = files(&tar_of(&[("DOE^JANE", b"", kind)]), LIMITS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(!error.message().contains("DOE"), "{error}");
    }
    let mut zip = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink("a", "/etc/passwd", ::zip::write::SimpleFileOptions::default()).unwrap();
    let archive = zip.finish().unwrap().into_inner();
    assert_eq!(files(&archive, LIMITS).unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[test]
fn bombs_are_refused() {
    let zeros = dicom(&vec![0; 80 << 20]);
    let tar = gzip(&tar_of(&[("a", &zeros, Regular)]));
    for archive in [zip_of(&[("a", &zeros, None)]), tar] {
        assert!(archive.len() < 1 << 20);
        let error = files(&archive, LIMITS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        let error = files(&archive, Limits { bytes: 1 << 20, entries: 9 }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{error}");
    }
    let many = zip_of(&[("a", b"", None), ("b", b"", None), ("c", b"", None)]);
    let error = files(&many, Limits { bytes: 1 << 20, entries: 2 }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
}

/// Skipped data counts like kept data: entries without images, extension headers, the data of a
/// folder.
#[test]
fn what_comes_out_counts_whatever_it_is() {
    use ::tar::EntryType::{GNULongName, XGlobalHeader, XHeader};
    let zeros = vec![0; 80 << 20];
    for kind in [Regular, Directory, GNULongName, XHeader, XGlobalHeader] {
        let tar = tar_of(&[("a", &zeros, kind), ("b", b"", Regular)]);
        let error = files(&gzip(&tar), LIMITS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{kind:?}: {error}");
        assert!(error.details().contains_key("entry"), "{kind:?}: {error}");
    }
    let limits = Limits { bytes: 1 << 20, entries: 100 };
    let error = files(&tar_of(&[("a", &zeros, Regular)]), limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{error}");
    let extensions: Vec<_> = (0..20).map(|_| ("a", &b"13 comment=x\n"[..], XHeader)).collect();
    let error = files(&tar_of(&extensions), LIMITS).unwrap_err();
    assert!(error.message().contains("extension headers"), "{error}");
}

#[test]
fn names_in_extension_headers_must_lie_inside_too() {
    use ::tar::EntryType::{GNULongName, XHeader};
    let long = (GNULongName, &b"../../x\0"[..]);
    let pax = (XHeader, &b"16 path=../../x\n"[..]);
    for (kind, name) in [long, pax] {
        let error = files(&tar_of(&[("a", name, kind), ("b", b"x", Regular)]), LIMITS).unwrap_err();
        assert!(error.message().contains("out of the archive"), "{error}");
    }
    let two_sizes = tar_of(&[("a", b"9 size=9\n", XHeader), ("b", b"x", Regular)]);
    let error = files(&two_sizes, LIMITS).unwrap_err();
    assert!(error.message().contains("two sizes"), "{error}");
}

#[test]
fn gzip_members_are_one_stream_but_not_a_flood() {
    let tar = tar_of(&[("a", &dicom(b"image"), Regular)]);
    let (first, second) = tar.split_at(700);
    let members = [gzip(first), gzip(b""), gzip(second)].concat();
    assert_eq!(files(&members, LIMITS).unwrap(), [(1, dicom(b"image"))]);
    let flood = [gzip(first), gzip(b"").repeat(1000), gzip(second)].concat();
    assert!(files(&flood, LIMITS).unwrap_err().message().contains("cannot be read"));
}

/// Only the beginning of files that do not begin like DICOM files is kept.
#[test]
fn other_files_are_handed_on_by_their_beginning() {
    let (image, other) = (dicom(&[7; 1000]), vec![7; 1000]);
    for archive in [
        zip_of(&[("image", &image, None), ("other", &other, None)]),
        tar_of(&[("image", &image, Regular), ("other", &other, Regular)]),
    ] {
        let expected = [(1, image.clone()), (2, other[..HEAD].to_vec())];
        assert_eq!(files(&archive, LIMITS).unwrap(), expected);
    }
}

#[test]
fn memory_is_announced_before_it_is_taken() {
    let image = dicom(&(0..300_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    let archive = zip_of(&[("a", &image, None), ("b", &image, None)]);
    let (mut held, mut taken) = (0, 0);
    let size = archive.len() as u64;
    let mut run = |most: u64| {
        (held, taken) = (0, 0);
        let mut hold = |bytes: u64| {
            held += bytes;
            let full = Error::new(ErrorKind::OutOfMemory, "full");
            if held > most { Err(full) } else { Ok(()) }
        };
        let mut take = |_: usize, data: Vec<u8>| {
            assert!(data.capacity() <= data.len() + HEAD);
            taken += data.len() as u64;
            Ok(())
        };
        let read =
            read_held(Cursor::new(&archive), size, Format::Zip, LIMITS, &mut hold, &mut take);
        (read, held, taken)
    };
    let (read, held, taken) = run(u64::MAX);
    read.unwrap();
    assert_eq!(held, taken - 2 * HEAD as u64);
    let (read, _, taken) = run(image.len() as u64 + 1);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::OutOfMemory);
    assert_eq!(taken, image.len() as u64);
}

/// Position of the last occurrence.
fn last(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).rposition(|w| w == needle).unwrap()
}

#[test]
fn zip_directories_are_believed_as_far_as_there_are_bytes() {
    let whole = zip_of(&[("a", &dicom(b"1"), None), ("b", &dicom(b"2"), None)]);
    assert_eq!(files(&whole, LIMITS).unwrap().len(), 2);
    let end = last(&whole, b"PK\x05\x06");
    let entry = last(&whole, b"PK\x01\x02");
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        files(&changed, LIMITS).unwrap_err()
    };
    // Two entries that share the bytes of the first one.
    let overlap = with(entry + 42, &[0; 4]);
    assert!(overlap.message().contains("shares its bytes"), "{overlap}");
    // Wrong counts of entries, and a directory larger than the archive.
    for error in [
        with(end + 8, &[0xFF, 0xFE, 0xFF, 0xFE]),
        with(end + 10, &[0xFF, 0xFF]),
        with(end + 12, &[0xFF, 0xFF, 0, 0]),
        with(end + 16, &[0xFF; 4]),
        with(end + 4, &[1, 0]),
    ] {
        assert!(matches!(error.kind(), ErrorKind::InvalidRequest | ErrorKind::PayloadTooLarge));
    }
    // Sizes and checksums that do not match the data.
    for at in [16, 20, 24] {
        let error = with(entry + at, &[9, 0, 0, 0]);
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    }
    let encrypted = with(entry + 8, &[1, 0]);
    assert!(encrypted.message().contains("password"), "{encrypted}");
}

#[test]
fn large_zip_archives_are_read_by_their_own_records() {
    let options = ::zip::write::SimpleFileOptions::default().large_file(true);
    let mut zip = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("a", options).unwrap();
    zip.write_all(&dicom(b"1")).unwrap();
    let mut whole = zip.finish().unwrap().into_inner();
    assert_eq!(files(&whole, LIMITS).unwrap(), [(1, dicom(b"1"))]);

    // The same archive with a zip64 end record, and with counts that would take terabytes.
    let end = last(&whole, b"PK\x05\x06");
    let directory = last(&whole, b"PK\x01\x02") as u64;
    let small = whole.split_off(end);
    let zip64 = |entries: u64| {
        let mut archive = whole.clone();
        archive.extend(b"PK\x06\x06");
        archive.extend(44_u64.to_le_bytes());
        archive.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [entries, entries, end as u64 - directory, directory] {
            archive.extend(number.to_le_bytes());
        }
        archive.extend(b"PK\x06\x07\0\0\0\0");
        archive.extend((end as u64).to_le_bytes());
        archive.extend(1_u32.to_le_bytes());
        archive.extend(&small[..8]);
        archive.extend([0xFF; 12]);
        archive.extend([0, 0]);
        archive
    };
    assert_eq!(files(&zip64(1), LIMITS).unwrap(), [(1, dicom(b"1"))]);
    for count in [1 << 40, u64::MAX, 100_000] {
        let error = files(&zip64(count), LIMITS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PayloadTooLarge, "{error}");
    }
}

#[test]
fn formats_are_told_by_their_beginning() {
    let mut dicom = vec![0; 128];
    dicom.extend(b"DICM");
    assert_eq!(format(&dicom), Some(Format::Dicom));
    assert_eq!(format(&zip_of(&[])), Some(Format::Zip));
    assert_eq!(format(&tar_of(&[("a", b"", Regular)])), Some(Format::Tar));
    assert_eq!(format(&gzip(b"")), Some(Format::Gzip));
    assert_eq!(format(b" {\"inputs\": []}"), Some(Format::Json));
    assert_eq!(format(b""), None);
}

proptest! {
    /// Any truncation or change results in an error or files, never a panic, and no more data is
    /// passed on than the limit.
    #[test]
    fn damage_is_an_error(cut in 0usize..2000, at in 0usize..2000, value: u8, which in 0usize..3) {
        let tar = tar_of(&[("a/1", &[7; 700], Regular), ("2", &[9; 300], Regular)]);
        let mut archive = match which {
            0 => zip_of(&[("a/1", &[7; 700], None), ("2", &[9; 300], None)]),
            1 => gzip(&tar),
            _ => tar,
        };
        let length = archive.len();
        archive[at % length] = value;
        archive.truncate(length - cut % length);
        if let Ok(files) = files(&archive, LIMITS) {
            prop_assert!(files.iter().map(|(_, data)| data.len()).sum::<usize>() <= 64 << 20);
        }
    }
}
