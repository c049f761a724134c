use std::io::{Cursor, Write};

use proptest::prelude::*;

use super::*;

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

/// Names are written into the header as they are, which the library itself refuses for some.
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
    let zeros = vec![0; 80 << 20];
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
    /// Whatever is cut off or changed is an error or a file, never a panic, and no more is handed
    /// on than the limit.
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
